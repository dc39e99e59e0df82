"""`RecordStore`: a converted data set, opened only if it is whole and what the config asks for."""

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from kerasseg.config import Experiment
from kerasseg.datasets.discovery import discover
from kerasseg.errors import UserError, storage_error
from kerasseg.progress import track
from kerasseg.records import manifest as manifests
from kerasseg.records.convert import convert, source_bytes
from kerasseg.records.manifest import CaseRow, Manifest, read_manifest, store_settings
from kerasseg.records.schema import StoredCase, decode
from kerasseg.records.tfrecord import read_record


class RecordStore:
    """Random access to the cases of a store. `rows` maps case id -> `CaseRow`, in store order."""

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.rows: dict[str, CaseRow] = {row.case_id: row for row in manifest.cases}

    def load(self, case_id: str) -> StoredCase:
        """Read one case. Raises `UserError` naming the file if its record is damaged."""
        row = self.rows[case_id]
        return decode(read_record(self.root / row.shard, row.offset, case_id))

    def locate(self, case_ids: Sequence[str]) -> tuple[list[str], list[int]]:
        """Files and byte offsets of the cases' records."""
        rows = [self.rows[case_id] for case_id in case_ids]
        return [str(self.root / row.shard) for row in rows], [row.offset for row in rows]

    def check_records(self, case_ids: Iterable[str] | None = None) -> None:
        """Re-read the records of some cases, or of all. Raises `UserError` naming a damaged one."""
        rows = [self.rows[case_id] for case_id in (self.rows if case_ids is None else case_ids)]
        for row in track(rows, len(rows), f"Checking {len(rows)} records") if rows else ():
            read_record(self.root / row.shard, row.offset, row.case_id)


def open_store(experiment: Experiment) -> RecordStore:
    """Open the experiment's store, converting the raw scans first if there is none.

    Raises `UserError` for a store made with other settings or from other scans (with the
    differences in words), and for shards that are missing or cut short.
    """
    root = _store_root(experiment)
    if not (root / manifests.FILE_NAME).exists():
        if root.exists() and (not root.is_dir() or any(root.iterdir())):
            raise UserError(
                f"records.root: {root} exists and is no record store (no manifest.json): name "
                "another folder with records.root=FOLDER, or empty this one."
            )
        return RecordStore(root, convert(experiment, root))
    manifest = read_manifest(root)
    _check_settings(experiment, manifest, root)
    _check_sources(experiment, manifest, root)
    _check_shards(manifest, root)
    return RecordStore(root, manifest)


def replace_store(experiment: Experiment) -> RecordStore:
    """Convert anew; an existing store makes way only when its successor is whole.

    Split files are taken along: they may have been made by hand.
    Raises `UserError` if something other than a record store stands there, and leaves it.
    """
    root = _store_root(experiment)
    if not root.exists():
        return open_store(experiment)
    unknown = [path.name for path in root.iterdir() if not _OURS.fullmatch(path.name)]
    if unknown or not (root / manifests.FILE_NAME).exists():
        what = f"holds {unknown[0]}" if unknown else "has no manifest.json"
        raise UserError(f"{root} {what}, so it is no record store of ours: not deleted.")
    new, old = (root.with_name(f".{root.name}.{word}") for word in ("new", "old"))
    try:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        convert(experiment, new)
        if (root / "splits").exists():
            shutil.copytree(root / "splits", new / "splits")
        root.rename(old)
        new.rename(root)
        shutil.rmtree(old)
    except OSError as error:
        raise storage_error(error, f"Replacing {root}", "records.root") from error
    return open_store(experiment)


def _store_root(experiment: Experiment) -> Path:
    """Where the store lies; a link is followed, because renaming would replace the link itself."""
    root = experiment.store_root
    return root.resolve() if root.is_symlink() else root


_OURS = re.compile(r"manifest\.json|shard-\d+-of-\d+\.tfrecord|splits")

_REMEDY = (
    "Name another folder with records.root=FOLDER, or replace this one (kerasseg convert "
    "--overwrite converts anew in its place)."
)


def _check_settings(experiment: Experiment, manifest: Manifest, root: Path) -> None:
    wanted, found = store_settings(experiment), manifest.settings
    differing = [
        f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} in this config"
        for key in sorted(wanted.keys() | found.keys())
        if wanted.get(key) != found.get(key)
    ]
    if differing:
        raise UserError(
            f"{root}: this record store was made with other settings: {'; '.join(differing)}. "
            + _REMEDY
        )


def _check_sources(experiment: Experiment, manifest: Manifest, root: Path) -> None:
    """Compare the raw scans with the store, unless they have been put away since."""
    raw = experiment.data.root
    if raw is None or (not raw.exists() and str(raw.resolve()) == manifest.data_root):
        return
    wanted = {source.case_id: source_bytes(source) for source in discover(experiment.data)}
    found = {row.case_id: row.file_bytes for row in manifest.cases}
    words = []
    for title, cases in (
        ("not in the store", wanted.keys() - found.keys()),
        ("only in the store", found.keys() - wanted.keys()),
        ("changed since", {c for c in wanted.keys() & found.keys() if wanted[c] != found[c]}),
    ):
        if cases:
            shown = ", ".join(sorted(cases)[:3]) + (", …" if len(cases) > 3 else "")
            words.append(f"{len(cases)} case(s) {title} ({shown})")
    if words:
        raise UserError(
            f"{root}: this record store was made from other scans than data.root={raw} now "
            f"holds: {'; '.join(words)}. " + _REMEDY
        )


def _check_shards(manifest: Manifest, root: Path) -> None:
    for name, size in manifest.shards.items():
        path = root / name
        if not path.exists():
            raise UserError(f"{path}: this shard of the store is missing. " + _REMEDY)
        if path.stat().st_size != size:
            raise UserError(
                f"{path}: is {path.stat().st_size} bytes long, the manifest says {size}: the file "
                "was cut or overwritten. " + _REMEDY
            )
