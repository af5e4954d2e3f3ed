"""Starts trainings and watches them."""
