"""Turns the newest epoch into a verified model that transformers loads."""
