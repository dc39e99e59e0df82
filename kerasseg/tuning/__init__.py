"""Tuning: a search over settings with KerasTuner, one process per trial."""
