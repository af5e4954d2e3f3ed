"""Tunes a model on preferences."""
