"""Losses: pure functions on `keras.ops` and one Keras class over them; all sums are float32."""
