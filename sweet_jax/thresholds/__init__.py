"""Chooses thresholds for a budget or a risk."""
