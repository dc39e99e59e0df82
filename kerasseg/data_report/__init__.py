"""Looking at every case before anything is trained on it. Needs no TensorFlow."""
