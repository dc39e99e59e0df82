"""`RecordStore`: a converted data set, opened only if it is whole and what the config asks for."""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from kerasseg.config.experiment import Experiment
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.folders import check_folder
from kerasseg.errors import UserError, printable, storage_error
from kerasseg.files import file_lock
from kerasseg.progress import track
from kerasseg.records.convert import LOCK_NAME, convert, names
from kerasseg.records.manifest import (
    CaseRow,
    Manifest,
    is_current,
    read_manifest,
    readable,
    store_settings,
    unchanged,
)
from kerasseg.records.schema import StoredCase, decode
from kerasseg.records.shards import Journal, is_damaged, next_shard
from kerasseg.records.tfrecord import read_record


class RecordStore:
    """Random access to the cases of a store.

    Attributes:
        root: Folder of the store.
        manifest: What it holds and how it was made.
        rows: Case id -> `CaseRow`, in store order.
    """

    def __init__(self, root: Path, manifest: Manifest) -> None:
        self.root = root
        self.manifest = manifest
        self.rows: dict[str, CaseRow] = {row.case_id: row for row in manifest.cases}

    def load(self, case_id: str) -> StoredCase:
        """Read one case. Raises `UserError` naming the file if its record is damaged."""
        row = self.rows[case_id]
        return decode(read_record(self.root / row.shard, row.offset, case_id))

    def locate(self, case_ids: Sequence[str]) -> tuple[list[str], list[int]]:
        """Return the files and byte offsets of the cases' records."""
        rows = [self.rows[case_id] for case_id in case_ids]
        return [str(self.root / row.shard) for row in rows], [row.offset for row in rows]

    def check_records(self, case_ids: Iterable[str] | None = None) -> None:
        """Re-read the records of some cases, or of all. Raises `UserError` naming a damaged one."""
        for message in self.damaged_records(case_ids).values():
            raise UserError(message)

    def damaged_records(self, case_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Re-read the records of some cases, or of all.

        Returns case id -> what is wrong with its record, for those that are damaged.
        """
        rows = [self.rows[case_id] for case_id in (self.rows if case_ids is None else case_ids)]
        tracked = track(rows, len(rows), f"Checking {len(rows)} records") if rows else ()
        found = {row.case_id: is_damaged(self.root, row) for row in tracked}
        return {case_id: reason for case_id, reason in found.items() if reason is not None}


def open_store(experiment: Experiment) -> RecordStore:
    """Open the experiment's store, converting the raw scans first if there is none.

    A conversion that was stopped goes on; one that another process makes is waited for. Raises
    `UserError` if the store was made with other settings or from other scans (the message names the
    differences), or shards are missing or cut short while `records.on_damaged_record` is stop.
    """
    root = _store_root(experiment)
    _check_ours(root)
    manifest = read_manifest(root)
    _check_settings(experiment, manifest, root)
    if manifest is None:
        sources = discover(experiment.data)
        existed = root.exists()
        with _store_lock(root):
            # Another process may have made the store while this one waited for the lock.
            manifest = read_manifest(root)
            _check_settings(experiment, manifest, root)
            if manifest is None:
                manifest = convert(experiment, sources, root, keep_folder=existed)
                return RecordStore(root, manifest)
    _check_sources(experiment, manifest, root)
    if experiment.records.on_damaged_record == "stop":
        for message in shard_faults(manifest, root):
            raise UserError(message)
    return RecordStore(root, manifest)


def check_raw_folder(experiment: Experiment) -> None:
    """Raise `UserError` when there is neither a store nor the folder that it would be made from."""
    if experiment.data.root and read_manifest(_store_root(experiment)) is None:
        check_folder(experiment.data.root)


def update_store(experiment: Experiment) -> RecordStore:
    """Convert what is new or changed since the store was made, and drop what is gone.

    Raises `UserError` for a store made with other settings.
    """
    root = _store_root(experiment)
    _check_ours(root)
    _check_settings(experiment, read_manifest(root), root)
    sources = discover(experiment.data)
    existed = root.exists()
    with _store_lock(root):
        _check_settings(experiment, read_manifest(root), root)
        return RecordStore(root, convert(experiment, sources, root, keep_folder=existed))


def replace_store(experiment: Experiment) -> RecordStore:
    """Convert anew; an existing store makes way only when its successor is whole.

    Split files are taken along, because they may have been made by hand. Raises `UserError` if
    something other than a record store stands there. It is left alone.
    """
    root = _store_root(experiment)
    if not root.exists():
        return open_store(experiment)
    _check_ours(root)
    if not names(root):
        return open_store(experiment)
    sources = discover(experiment.data)
    new, old = _beside(root, "new"), _beside(root, "old")
    try:
        with _store_lock(root):
            for leftover in (new, old):
                shutil.rmtree(leftover, ignore_errors=True)
            # Names that no shard had: who still reads the old store finds no other case in them.
            convert(experiment, sources, new, first_shard=next_shard(root))
            if (root / "splits").exists():
                shutil.copytree(root / "splits", new / "splits")
            root.rename(old)
            new.rename(root)
            shutil.rmtree(old)
    except OSError as error:
        raise storage_error(error, f"Replacing {root}", "records.root") from error
    return open_store(experiment)


def _store_lock(root: Path) -> AbstractContextManager[None]:
    return file_lock(root / LOCK_NAME, "converts into this store", "records.root")


def _store_root(experiment: Experiment) -> Path:
    """Return where the store lies, through a link: renaming would replace the link itself."""
    root = experiment.store_root
    root = root.resolve() if root.is_symlink() else root
    if (old := _beside(root, "old")).is_dir() and not root.exists():
        old.rename(root)  # `replace_store` was killed between its two renames
    return root


def _beside(root: Path, word: str) -> Path:
    return root.with_name(f".{root.name}.{word}")


_OURS = re.compile(
    r"store\.json|manifest\.jsonl?|journal\.jsonl|splits|\.lock|shard-\d+(-of-\d+)?\.tfrecord"
    r"|\.(store|manifest|journal)\.(.+\.)?incomplete\.jsonl?|\.shard-\d+\.tfrecord\.incomplete"
)
"""Everything that a store may hold, those of the first format included."""

UPDATE_REMEDY = "Bring the store up to date with kerasseg convert (unchanged cases are kept)."
_REMEDY = (
    "Name another folder with records.root=FOLDER, or replace this one (kerasseg convert "
    "--overwrite converts anew in its place)."
)


def _check_ours(root: Path) -> None:
    """Refuse a path that is no store and no empty folder, before anything in it is touched."""
    if not root.exists():
        return
    found = names(root) if root.is_dir() else [root.name]
    unknown = [name for name in found if not _OURS.fullmatch(name)]
    if unknown or not root.is_dir():
        what = f"holds {unknown[0]}" if root.is_dir() else "is a file"
        raise UserError(
            f"records.root: {root} {what}, so it is no record store of ours and is left alone: "
            "name another folder with records.root=FOLDER, or empty this one."
        )


def _check_settings(experiment: Experiment, manifest: Manifest | None, root: Path) -> None:
    wanted = store_settings(experiment)
    found = manifest.settings if manifest else Journal(root).settings()
    if found is None:
        return
    differing = [
        f"{key} is {found.get(key)!r} there and {wanted.get(key)!r} in this config"
        for key in sorted(wanted.keys() | found.keys())
        if wanted.get(key) != found.get(key)
    ]
    if differing:
        kind = "record store was" if manifest else "unfinished conversion was"
        raise UserError(
            f"{root}: this {kind} made with other settings: {'; '.join(differing)}. " + _REMEDY
        )


def _check_sources(experiment: Experiment, manifest: Manifest, root: Path) -> None:
    """Compare the raw scans with the store, unless they have been put away since."""
    raw = experiment.data.root
    if raw is not None and not raw.exists() and printable(str(raw.resolve())) == manifest.data_root:
        return
    sources = {source.case_id: source for source in discover(experiment.data)}
    stored = {row.case_id: row for row in manifest.cases}
    skipped = {case.case_id: case.files for case in manifest.skipped}
    known = stored.keys() | skipped.keys()
    changed = {
        case_id
        for case_id, source in sources.items()
        if (case_id in stored and not is_current(source, raw, stored[case_id]))
        or (case_id in skipped and not unchanged(readable(source.files), raw, skipped[case_id]))
    }
    patients = {row.case_id: row.patient_id for row in manifest.cases}
    regrouped = {c for c in patients.keys() & sources if sources[c].patient_id != patients[c]}
    found = []
    for title, cases in (
        ("not in the store", sources.keys() - known),
        ("only in the store", known - sources.keys()),
        ("changed since", changed),
        ("of another patient now", regrouped),
    ):
        if cases:
            shown = ", ".join(sorted(cases)[:3]) + (", …" if len(cases) > 3 else "")
            found.append(f"{len(cases)} case(s) {title} ({shown})")
    if found:
        raise UserError(
            f"{root}: this record store was made from other scans than data.root={raw} now "
            f"holds: {'; '.join(found)}. {UPDATE_REMEDY} Or name another folder with "
            "records.root=FOLDER."
        )


def shard_faults(manifest: Manifest, root: Path) -> Iterator[str]:
    """Say of each shard that is missing or has another size what is wrong with it."""
    for name, size in manifest.shards.items():
        path = root / name
        cases = [row.case_id for row in manifest.cases if row.shard == name]
        shown = ", ".join(cases[:3]) + (", …" if len(cases) > 3 else "")
        if not path.exists():
            yield (
                f"{path}: this shard of the store, with {len(cases)} case(s) ({shown}), is "
                f"missing. {UPDATE_REMEDY}"
            )
        elif path.stat().st_size != size:
            yield (
                f"{path}: is {path.stat().st_size} bytes long, the manifest says {size}: the "
                f"file, with {len(cases)} case(s) ({shown}), was cut or overwritten. "
                f"{UPDATE_REMEDY}"
            )
