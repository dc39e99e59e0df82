"""Run by test_resume.py: convert in a child that dies at the k-th write, for every k.

After each death a second child converts again, to its end. Prints a line of JSON per k: whether the
parent's reference store was reached, and which shards were kept. No TensorFlow is imported here,
so that forking is safe.
"""

import functools
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from kerasseg.config.load import load_experiment
from kerasseg.datasets import phantom
from kerasseg.records import shards as journal
from kerasseg.records import shards as shard_writer
from kerasseg.records.manifest import read_manifest
from kerasseg.records.store import open_store

DIED = 9


def dying_at(k: int, action: Callable[[], object]) -> int:
    """Exit code of a child that runs `action` and dies at its k-th write to the disk."""
    child = os.fork()
    if child == 0:
        counter = itertools.count(1)

        def deadly(function: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*args: object, **kwargs: object) -> object:
                if next(counter) == k:
                    os._exit(DIED)
                result = function(*args, **kwargs)
                if next(counter) == k:
                    os._exit(DIED)
                return result

            return wrapped

        Path.replace = deadly(Path.replace)
        Path.unlink = deadly(Path.unlink)
        Path.write_text = deadly(Path.write_text)
        Path.mkdir = deadly(Path.mkdir)
        shard_writer.write_record = deadly(shard_writer.write_record)
        journal.Journal.add = deadly(journal.Journal.add)
        action()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def shards(root: Path) -> dict[str, int]:
    """Finished shards and their inodes: a shard that is kept keeps its inode."""
    return {p.name: p.stat().st_ino for p in root.glob("shard-*.tfrecord")}


def leftovers(root: Path, *, whole_already: bool) -> list[str]:
    """What should not lie in a store; its journal may, if the death came after the last write."""
    unwanted = [] if whole_already else ["journal.jsonl"]
    return [p.name for p in root.iterdir() if "incomplete" in p.name or p.name in unwanted]


def main(folder: Path, *overrides: str) -> None:
    # The children inherit what the reference has made.
    phantom.make_phantom = functools.cache(phantom.make_phantom)
    reference = open_store(load_experiment(None, [*overrides, f"records.root={folder / 'whole'}"]))
    root = folder / "killed"
    experiment = load_experiment(None, [*overrides, f"records.root={root}"])
    for k in itertools.count(1):
        shutil.rmtree(root, ignore_errors=True)
        code = dying_at(k, lambda: open_store(experiment))
        left = shards(root) if root.exists() else {}
        noted = {name for name, *_ in journal.Journal(root).shards()} if root.exists() else set()
        whole_already = root.exists() and read_manifest(root) is not None
        store = open_store(experiment)
        after = shards(root)
        print(
            json.dumps(
                {
                    "k": k,
                    "died": code == DIED,
                    "same": store.manifest.data_fingerprint == reference.manifest.data_fingerprint,
                    "damaged": len(store.damaged_records()),
                    "kept": [name for name in sorted(left) if left[name] == after.get(name)],
                    "noted": sorted(noted),
                    "whole_already": whole_already,
                    "leftovers": leftovers(root, whole_already=whole_already),
                }
            ),
            flush=True,
        )
        if code != DIED:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
