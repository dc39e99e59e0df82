"""Figures of data, scores, volumes and runs, all drawn in one style."""
