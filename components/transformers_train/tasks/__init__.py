"""What is peculiar to each transformer type."""
