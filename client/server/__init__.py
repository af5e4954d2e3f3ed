"""Kubeflow Pipelines on a server: upload, run, follow, schedule."""
