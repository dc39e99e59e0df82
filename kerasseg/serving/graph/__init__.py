"""Prediction of raw scans as a TensorFlow graph: the thin twin of `inference`."""
