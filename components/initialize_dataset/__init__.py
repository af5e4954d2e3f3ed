"""Puts a dataset's files on the volume."""
