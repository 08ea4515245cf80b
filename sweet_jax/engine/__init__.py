"""Real early exit: compiled segments, run on streams of rows."""
