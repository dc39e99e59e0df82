"""Patch models in the formats of other runtimes."""
