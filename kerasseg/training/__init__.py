"""Devices, precision, optimiser, callbacks and the fit itself."""
