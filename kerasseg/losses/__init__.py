"""Losses: pure functions on `keras.ops`, Keras classes over them. All sums are float32."""
