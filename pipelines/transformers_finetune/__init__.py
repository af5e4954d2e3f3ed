"""Fine-tunes a model of transformers for its task, from dataset to verified export."""
