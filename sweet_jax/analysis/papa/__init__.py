"""PAPA (Hassid et al., Findings of EMNLP 2022): how much does attention attend?

A frozen encoder's attention matrices are replaced, head by head, by constants, and a
light probe on all hidden states is trained and scored. `runs/papa.py` runs the steps.
"""
