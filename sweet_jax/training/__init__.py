"""Training: methods, losses, the optimiser, the step and the loop."""
