"""Serving: trained runs as SavedModels."""
