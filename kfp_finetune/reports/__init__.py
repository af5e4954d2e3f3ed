"""Self-contained HTML reports on data, training and evaluation."""
