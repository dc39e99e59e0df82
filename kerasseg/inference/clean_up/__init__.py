"""Post-processing of masks: one operation a file, and `clean_up`, which does what settings say."""
