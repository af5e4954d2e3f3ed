"""Every step: its KFP interface beside the plain code that does the work."""
