"""Searching for good settings with KerasTuner."""
