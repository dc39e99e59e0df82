"""What two run folders have in common: files, weights, history."""

import csv
import io
import zipfile
from collections import Counter
from pathlib import Path

import h5py
import numpy as np


def weights(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a `.keras` file by their names, read without Keras."""
    found = {}

    def note(name, item):
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with zipfile.ZipFile(path) as archive:
        h5py.File(io.BytesIO(archive.read("model.weights.h5"))).visititems(note)
    return found


def history(folder: Path) -> list[dict[str, float]]:
    """Rows of `history.csv`."""
    with (folder / "history.csv").open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def files(folder: Path) -> Counter[str]:
    """How many files of each name; those of TensorBoard by their folder."""
    paths = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
    return Counter(str(p.parent if p.name.startswith("events.out") else p) for p in paths)
