"""Inference: the model folder and the classifier made of it."""
