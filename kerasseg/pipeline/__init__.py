"""Record store -> tf.data batches. The same seed gives the same batches."""
