"""The commands: one module each, which defines the flags and makes one call."""
