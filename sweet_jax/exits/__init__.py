"""Exit criteria and temperature calibration: maps of logits, no model."""
