"""The step that prepares the volume on which a pipeline keeps its large files."""
