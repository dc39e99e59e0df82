"""Keras callbacks of a run, one per file."""
