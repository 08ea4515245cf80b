"""The code that travels in exported folders; it imports nothing of this package."""
