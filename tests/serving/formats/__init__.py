"""Tests of kerasseg.serving.formats."""
