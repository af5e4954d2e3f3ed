"""Plans a fine-tuning and runs it with TorchTune."""
