"""What travels in an exported folder: the code that reads it there."""
