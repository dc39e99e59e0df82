"""Figures of a data set, one per file. Each function returns a matplotlib `Figure`."""
