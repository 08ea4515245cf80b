"""Analyses: measurements of a run in addition to its losses and results."""
