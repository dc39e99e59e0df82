"""`kerasseg space`: a folder that Hugging Face runs as a Space, with the page and its networks.

No index has kerasseg, so the folder holds the package itself, as it is installed here. Hugging
Face may install the requirements before it copies the folder, where a wheel could not be found.
"""

import shutil
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

import jinja2
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from kerasseg import __version__
from kerasseg.config.load import dump_without_folders
from kerasseg.config.model import NETWORKS
from kerasseg.errors import UserError, storage_error
from kerasseg.files import write_json
from kerasseg.run import CHECKPOINT, Run, read_run

Sdk = Literal["docker", "gradio"]
_ROOTS: Final = {
    "docker": ("kerasseg[serving]",),
    "gradio": ("kerasseg[serving]", "gradio[mcp,oauth]"),
}
"""Hugging Face installs Gradio with these extras, which allow older versions of pydantic only."""
_PACKAGE: Final = Path(__file__).resolve().parents[1]
_TEMPLATES: Final = Path(__file__).with_name("space_files")
_OF_THE_OTHER: Final = {"docker": "app.py", "gradio": "Dockerfile"}
_SITE: Final = "https://huggingface.co"
"""It shows a Space in a frame."""
_PORT: Final = 7860
_OF_SCANS: Final = ("packages", "voxel_sizes", "intensities")
"""The parts of `environment.json` that a prediction uses; others tell of the user's machine."""


def write_space(folders: Sequence[Path], output: Path, sdk: Sdk) -> list[str]:
    """Write a Space that offers run folders on the page.

    Returns the names of the files and folders that were written. Raises `UserError` for a run that
    cannot be used, packages that are missing here, and an output that holds something else or
    cannot be written.

    Args:
        folders: The run folders. Only what a prediction needs of them is copied, without absolute
            paths of this machine.
        output: A new or empty folder, or an earlier Space, which is replaced.
        sdk: Whether Hugging Face builds a Dockerfile, or starts Gradio, which shows the page in a
            frame.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.folder.resolve().name for run in runs]
    for run, name in zip(runs, names, strict=True):
        if names.count(name) > 1:
            raise UserError(f"Two runs are called {name}: rename one of the folders.")
        if run.experiment.model.network not in NETWORKS:
            raise UserError(
                f"{run.folder} has the network {run.experiment.model.network}, whose code is your "
                "own: a Space would lack it. Choose a run of a network of kerasseg."
            )
        if boxes := run.experiment.model.sam.boxes_from:
            raise UserError(
                f"{run.folder} has model.sam.boxes_from={boxes}, a folder that a Space would lack. "
                "Choose a run without it: on the page it is the visitor who points."
            )
    _check_output(output)
    requirements = pinned(_ROOTS[sdk])
    host = ["--host", "0.0.0.0", "--port", str(_PORT), "--public", "--embed-in", _SITE]
    values = {
        "sdk": sdk,
        "title": f"kerasseg: {', '.join(names)}",
        "names": names,
        "version": __version__,
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "gradio": metadata.version("gradio") if sdk == "gradio" else None,
        "site": _SITE,
        "port": _PORT,
        "command": ["python", "-m", "kerasseg", "app", *(f"runs/{name}" for name in names), *host],
    }
    try:
        for name in ("kerasseg", "runs"):
            shutil.rmtree(output / name, ignore_errors=True)
        skipped = shutil.ignore_patterns("__pycache__", ".*")
        shutil.copytree(_PACKAGE, output / "kerasseg", ignore=skipped)
        shutil.copyfile(_TEMPLATES / "LICENSE", output / "LICENSE")
        for run, name in zip(runs, names, strict=True):
            _copy_run(run, output / "runs" / name)
        (output / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
        for template in _TEMPLATES.glob("*.jinja"):
            name = template.stem.replace("gitattributes", ".gitattributes")
            if name != _OF_THE_OTHER[sdk]:
                text = jinja2.Template(template.read_text("utf-8"), keep_trailing_newline=True)
                (output / name).write_text(text.render(values), encoding="utf-8")
    except OSError as error:
        raise storage_error(error, f"Writing {output}", "--output") from error
    return sorted(path.name for path in output.iterdir())


def _check_output(output: Path) -> None:
    """Refuse a folder whose contents are not a Space's: they would be replaced."""
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    readme = output / "README.md"
    if not (readme.is_file() and "\nsdk: " in readme.read_text("utf-8", errors="replace")):
        raise UserError(
            f"{output} holds something other than a Space: name a new folder with --output, or "
            "the clone of a Space."
        )


def _copy_run(run: Run, folder: Path) -> None:
    (folder / CHECKPOINT).parent.mkdir(parents=True)
    shutil.copyfile(run.checkpoint, folder / CHECKPOINT)
    (folder / "config.yaml").write_text(dump_without_folders(run.experiment), encoding="utf-8")
    known = {name: value for name, value in run.environment.items() if name in _OF_SCANS}
    write_json(folder / "environment.json", known, "run.root")


def pinned(roots: Sequence[str]) -> list[str]:
    """Return NAME==VERSION of all that some packages need, as it is installed here.

    `roots` are names with extras; kerasseg itself is left out. Raises `UserError` if one of them is
    not installed, or in another version than another one needs.
    """
    waiting = [(root, root) for root in roots]
    versions: dict[str, str] = {}
    known: set[tuple[str, str]] = set()
    while waiting:
        text, root = waiting.pop()
        needed = Requirement(text)
        name = canonicalize_name(needed.name)
        try:
            versions[name] = metadata.version(name)
            texts = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            versions[name], texts = "missing", []
        if versions[name] == "missing" or not needed.specifier.contains(versions[name], True):
            raise UserError(
                f"{root} needs {name}{needed.specifier}, which is {versions[name]} here: "
                f"pip install '{root}', in an environment of its own if others need another."
            )
        for extra in {"", *needed.extras}:
            if (name, extra) not in known:
                known.add((name, extra))
                parts = [Requirement(part) for part in texts]
                fit = [p for p in parts if not p.marker or p.marker.evaluate({"extra": extra})]
                waiting += [(f"{p.name}[{','.join(p.extras)}]{p.specifier}", root) for p in fit]
    del versions["kerasseg"]
    return [f"{name}=={version}" for name, version in sorted(versions.items())]
