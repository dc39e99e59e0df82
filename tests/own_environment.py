"""Packages that cannot be installed beside TensorFlow, each in an environment of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_PIP_SECONDS = 400


def own_environment(requirement: str, module: str) -> Path:
    """The Python of an environment with `requirement`, such as panoptica==2.1.7, whose `module` can
    be imported; made once and kept: ~/.cache/kerasseg/panoptica-2.1.7. Skips, with pip's reason,
    where it cannot be installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    folder = cache / "kerasseg" / requirement.replace("==", "-")
    python = folder / "bin" / "python"
    works = [python, "-c", f"import {module}"]
    if python.exists() and not subprocess.run(works, check=False, capture_output=True).returncode:
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    try:
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=_PIP_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.skip(f"{requirement} cannot be installed: pip took more than {_PIP_SECONDS} s")
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["pip does not say why"])[-1]
        pytest.skip(f"{requirement} cannot be installed: {last}")
    return python
