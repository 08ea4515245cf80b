"""Encoders, exits, and the models made of them."""
