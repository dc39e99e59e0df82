"""Cases x models -> tables, figures and a report."""
