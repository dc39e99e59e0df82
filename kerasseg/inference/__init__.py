"""A volume through one or several networks, and masks from probabilities."""
