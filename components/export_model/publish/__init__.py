"""Puts a finished export where others find it: repositories of the Hugging Face Hub, buckets of S3."""
