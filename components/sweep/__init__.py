"""Many trainings of one model on one dataset, and the best of them."""
