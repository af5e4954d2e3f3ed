"""Puts a model's files on the volume."""
