"""Figures of a search, one per file."""
