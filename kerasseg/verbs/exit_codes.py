"""What the shell is told of a verb."""

USER_MISTAKE = 2
"""Everything the user can mend."""
FOUND_ERRORS = 1
"""`verify` found an error, or a case of `predict` failed."""
INTERRUPTED = 130
"""Ctrl-C, as shells have it."""
TERMINATED = 143
"""SIGTERM."""
