"""Scans to a TensorFlow Serving server, segmentations back."""
