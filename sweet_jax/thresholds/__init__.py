"""From a budget or a risk to thresholds."""
