"""From a laptop: compile, run, follow."""
