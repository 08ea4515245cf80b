"""Model folders for other runtimes."""
