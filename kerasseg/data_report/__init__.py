"""Reports on a data set before anything is trained on it. They need no TensorFlow."""
