"""`Case` <-> TFRecord store. Writing and whole-case reading need no TensorFlow."""
