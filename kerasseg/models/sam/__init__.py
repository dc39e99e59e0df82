"""SAM, the Segment Anything Model, and LiteMedSAM in `keras.ops`."""
