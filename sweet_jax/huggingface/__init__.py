"""Encoders from and to Hugging Face folders."""
