"""Networks: Functional Keras models written with `keras.ops` and `keras.layers` only."""
