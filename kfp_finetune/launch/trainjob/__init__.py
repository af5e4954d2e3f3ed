"""Runs a training as a TrainJob of Kubeflow Trainer: makes it, follows it, explains it, ends it."""
