"""Albumentations' transforms on slices of z-scores, named in the config. Knows no TensorFlow."""
