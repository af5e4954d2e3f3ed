"""Where datasets and models come from."""
