"""What `kerasseg <verb>` does, a file per verb. TensorFlow is imported inside a verb only."""
