"""Run one measurement in a fresh process, so that peaks of memory and caches are its own."""

import json
import subprocess
import sys
from typing import Any


def measure(module: str, *arguments: str) -> dict[str, Any]:
    """`python -m module arguments`; the last line it prints is JSON."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{module} {' '.join(arguments)} failed with code {done.returncode}")
    return json.loads(done.stdout.strip().splitlines()[-1])
