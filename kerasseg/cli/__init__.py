"""The command line: `kerasseg VERB`. TensorFlow is imported inside a verb only."""
