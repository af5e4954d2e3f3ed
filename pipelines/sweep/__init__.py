"""Fine-tunes a model with TorchTune, from dataset to verified export."""
