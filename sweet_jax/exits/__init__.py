"""Processing of exit outputs: criteria, temperatures, calibration, the exit rule."""
