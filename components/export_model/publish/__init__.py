"""Puts a finished export where others find it: the Hub, buckets of S3, and Model Registries that point there."""
