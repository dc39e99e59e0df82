"""Finding what is to be predicted: the same files as in the layouts, without segmentations."""
