"""Whether a cluster is ready for the pipelines."""
