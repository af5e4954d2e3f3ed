"""Fine-tunes models of transformers for their tasks."""
