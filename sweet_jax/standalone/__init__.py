"""Code that is copied into exported folders; it does not import this package."""
