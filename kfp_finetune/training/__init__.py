"""What every room that trains shares: plans, epochs, figures, and where and how the processes run."""
