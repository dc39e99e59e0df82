"""Label maps and probabilities -> files."""
