"""Packages that cannot be installed beside TensorFlow, each in an environment of its own.

`python -m tests.own_environment` makes those of `make test`, which does so before it begins.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

KSERVE, PANOPTICA = "kserve==0.21.0", "panoptica==2.1.7"
GRADIO = "gradio[mcp,oauth]==6.31.0"
"""Made by its test, which only `make test-all` runs."""
_PIP_SECONDS = 400


def own_environment(requirement: str) -> Path:
    """The Python of an environment with `requirement`, made once for each version of Python and
    kept, such as ~/.cache/kerasseg/panoptica-2.1.7-3.11. Skips, with pip's reason, where it cannot
    be installed."""
    try:
        return _make(requirement)
    except RuntimeError as error:
        pytest.skip(f"{requirement} cannot be installed: {error}")


def _make(requirement: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    version = ".".join(map(str, sys.version_info[:2]))
    folder = cache / "kerasseg" / f"{requirement.replace('==', '-')}-{version}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.exists():
        return python
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
    try:
        subprocess.run(pip, check=True, capture_output=True, text=True, timeout=_PIP_SECONDS)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"pip took more than {_PIP_SECONDS} s") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["pip does not say why"])[-1]
        raise RuntimeError(last) from None
    ready.touch()
    return python


def main() -> None:
    """Make all; one that cannot be made is named, and its tests skip."""
    for requirement in (KSERVE, PANOPTICA):
        try:
            _make(requirement)
        except RuntimeError as error:
            print(f"{requirement} cannot be installed, its tests skip: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
