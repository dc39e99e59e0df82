"""The largest memory of this process."""

import resource
import sys


def peak_memory() -> int:
    """Largest resident memory of this process so far in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux KiB
