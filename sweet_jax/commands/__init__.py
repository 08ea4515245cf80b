"""The command lines: flags, then one call."""
