"""Figures of a run, one per file."""
