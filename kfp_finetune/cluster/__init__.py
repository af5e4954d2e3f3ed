"""Talks to the Kubernetes API."""
