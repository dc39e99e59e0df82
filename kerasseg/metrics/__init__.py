"""Metrics: NumPy functions for whole volumes, Keras classes for training."""
