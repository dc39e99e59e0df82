"""Augmentation in the graph: each op draws its parameters from a seed; a twin applies them."""
