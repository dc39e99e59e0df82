"""Measure the house: files, lines, circles, and the way from `train.py` to the loss.

`python scripts/house.py` prints one line per measure with its limit and exits with 1 when a limit
is passed. The limits are those of docs/architecture.md. `make lint` runs it.
"""

import runpy
import statistics
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import FrameType

SCRIPT = Path(__file__).resolve()
ROOT = SCRIPT.parents[1]
STEP, LOSS = "kerasseg/training/step.py", "kerasseg/losses/functional.py"
FILES, LINES, MEDIAN, LONGEST, STEPS = 225, 43_200, 110, 500, 7
"""Of kerasseg/: files, lines, median and longest file in lines; files from train.py to the loss."""

TINY_RUN = (
    "data.phantom={cases: 4, shape: [16, 24, 20]}",
    "split={validation: 0.25, test: 0.25}",
    "records.workers=1",
    "pipeline={patch_size: [8, 16, 12], patches_per_volume: 1}",
    "model={features: [4, 6], bottleneck: 8}",
    "training={epochs: 1, batch_size: 1, gradient_accumulation: 1}",
)


class _LossReached(BaseException):
    """Ends the tiny run. It is no `Exception`, so that nothing on the way handles it."""


def main() -> None:
    """Print every measure and end with exit code 1 if one of them is beyond its limit."""
    lines = {path: len(path.read_text().splitlines()) for path in _tracked_python_files()}
    longest = max(lines, key=lines.__getitem__)
    circle = find_circle()
    way = files_to_the_loss()
    count, total, middle = len(lines), sum(lines.values()), statistics.median(lines.values())
    length, steps = lines[longest], len(way)
    rows = [
        ("Python files", count, f"at most {FILES}", count <= FILES),
        ("lines", total, f"at most {LINES}", total <= LINES),
        ("median file", middle, f"at least {MEDIAN}", middle >= MEDIAN),
        (f"longest file, {longest.name}", length, f"at most {LONGEST}", length <= LONGEST),
        ("files from train.py to the loss", steps, f"at most {STEPS}", steps <= STEPS),
        ("circle of imports", " -> ".join(circle) or "none", "none", not circle),
    ]
    for name, value, limit, kept in rows:
        print(f"{'ok ' if kept else 'NO '} {name}: {value} ({limit})")
    print("The way to the loss: " + ", ".join(way))
    sys.exit(0 if all(row[3] for row in rows) else 1)


def find_circle() -> list[str]:
    """Return the modules of one circle of imports, or nothing.

    Imports inside functions and under `TYPE_CHECKING` count.
    """
    import grimp

    graph = grimp.build_graph("kerasseg")
    arrows = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def files_to_the_loss() -> list[str]:
    """Return our own files on the stack when a tiny `train.py` computes its loss, outermost first.

    Raises:
        RuntimeError: the run ended without a loss; its output was printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        arguments = [*TINY_RUN, f"records.root={folder}/records", f"run.root={folder}/runs"]
        command = [sys.executable, __file__, "--trace", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    names = [line.removeprefix("own: ") for line in done.stdout.splitlines() if "own: " in line]
    if not names:
        raise RuntimeError(f"train.py did not reach the loss:\n{done.stdout}\n{done.stderr}")
    return names


def trace(arguments: list[str]) -> None:
    """Run `train.py` in this process and print our files on the stack of its first loss."""

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not frame.f_code.co_filename.endswith(LOSS):
            return
        entries = traceback.extract_stack(frame)
        if any(entry.name == "<module>" and entry.filename.endswith(STEP) for entry in entries):
            return  # the step is being imported
        stack = [Path(entry.filename) for entry in entries]
        own = [name for name in stack if ROOT in name.parents and ".venv" not in name.parts]
        names = [str(name.relative_to(ROOT)) for name in dict.fromkeys(own) if name != SCRIPT]
        if STEP in names:  # else the losses are only imported or made
            print(*(f"own: {name}" for name in names), sep="\n", flush=True)
            raise _LossReached

    sys.argv = ["train.py", *arguments]
    sys.path.insert(0, str(ROOT))
    sys.setprofile(watch)
    with suppress(_LossReached):
        runpy.run_path(str(ROOT / "train.py"), run_name="__main__")


def _tracked_python_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "kerasseg/*.py"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.splitlines()]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--trace"]:
        trace(sys.argv[2:])
    else:
        main()
