"""The step that ends what a run still holds."""
