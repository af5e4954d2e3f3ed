"""The step that deletes the volume of a pipeline unless it is to be kept."""
