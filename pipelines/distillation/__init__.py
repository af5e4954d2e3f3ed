"""Distils a teacher into a smaller model."""
