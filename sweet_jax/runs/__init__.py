"""Runs: from settings to results, model folder and report."""
