"""The typed experiment: a file per section, `experiment.py` over them, reading and messages."""
