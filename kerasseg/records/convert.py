"""Converting cases into a record store: a new one, an unfinished one, or an outdated one."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

from kerasseg.config.experiment import Experiment
from kerasseg.datasets.case import BrokenSource, CaseSource
from kerasseg.datasets.checks import check_enhancing_ids, read_case
from kerasseg.errors import UserError, printable, storage_error
from kerasseg.files import require_space
from kerasseg.parallel import parallel_map
from kerasseg.progress import track
from kerasseg.records.manifest import (
    CaseRow,
    Manifest,
    SkippedCase,
    describe,
    fingerprint,
    is_current,
    read_manifest,
    read_rows,
    readable,
    store_settings,
)
from kerasseg.records.schema import encode
from kerasseg.records.shards import INCOMPLETE_NAME, SHARD_NAME, Journal, ShardWriter, is_damaged
from kerasseg.records.tfrecord import FRAMING_BYTES, read_record
from kerasseg.tensorflow_setup import usable_cores

LOCK_NAME = ".lock"


@dataclass
class Converted:
    """One converted case.

    row:     its row of the manifest, without a place in a shard yet; None if it was refused
    payload: its record
    refusal: why there is no record
    """

    source: CaseSource
    row: CaseRow | None
    payload: bytes
    refusal: str = ""


def convert_cases(experiment: Experiment, sources: Sequence[CaseSource]) -> Iterator[Converted]:
    """Convert cases in parallel processes and yield them in order.

    At most one case more than there are processes is in memory.
    """
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    return parallel_map(partial(_convert, experiment), sources, workers, _killed)


def _killed(source: CaseSource) -> NoReturn:
    # This is never skipped as a bad case: the machine is at fault, and the next try may succeed.
    raise UserError(
        f"{source.case_id}: the process that converted it was killed, most likely because memory "
        "ran out: try again with records.workers=1; what is converted already is kept."
    )


def _convert(experiment: Experiment, source: CaseSource) -> Converted:
    try:
        case = read_case(source, experiment.data)
        if case.label is None:
            place = source.files[0].parent if source.files else source.case_id
            raise UserError(
                f"{place}: case {source.case_id} has no segmentation, which training needs: add "
                "it, or remove the case from data.root."
            )
        files = describe(source.files, experiment.data.root)
        records = experiment.records
        encoded = encode(
            case,
            records.foreground_voxels,
            records.compression,
            skull_stripped=experiment.data.skull_stripped,
            normalisation=experiment.data.normalisation,
        )
    except UserError as error:
        return Converted(source, None, b"", str(error))
    except MemoryError:
        _killed(source)
    except Exception as error:
        # A file that our readers did not expect is a bad case like any other.
        reason = f"{source.case_id}: cannot be converted ({type(error).__name__}: {error})."
        return Converted(source, None, b"", printable(reason))
    described = vars(encoded) | {"crop_offset": encoded.offset, "offset": 0}
    del described["payload"]
    row = CaseRow(
        case_id=source.case_id,
        patient_id=source.patient_id,
        shard="",
        payload_bytes=len(encoded.payload),
        checksum=0,
        spacing=case.spacing,
        file_spacing=case.grid.spacing,
        files=files,
        attributes=case.attributes,
        notes=case.notes,
        enhancing_id=case.enhancing_id,
        reading=getattr(source, "reading", ""),
        **described,
    )
    return Converted(source, row, encoded.payload)


def convert(
    experiment: Experiment,
    sources: Sequence[CaseSource],
    root: Path,
    *,
    keep_folder: bool = False,
    first_shard: int = 0,
) -> Manifest:
    """Bring the store at `root` up to date with `sources`.

    Only cases that are new, or whose raw files changed, are converted. Finished shards are kept
    whatever happens, so a conversion that was killed goes on where it was; the store counts as
    whole when its `store.json` is written. The caller holds the lock of `root`. Returns the
    manifest of the whole store. Raises `UserError` if a case is bad (unless `data.on_bad_case` is
    skip), the disk is full, or the folder cannot be written.

    Args:
        experiment: Says how cases are read and stored.
        sources: Every case that `experiment.data` holds.
        root: Folder of the store. Where it was empty and no shard comes to stand in it, it is
            removed again.
        keep_folder: Empty it instead: the user had made it.
        first_shard: Least number of new shards.
    """
    is_new = False
    try:
        root.mkdir(parents=True, exist_ok=True)
        is_new = not set(names(root)) - {LOCK_NAME}
        return _bring_up_to_date(experiment, sources, root, first_shard)
    except OSError as error:
        raise storage_error(error, f"Writing the record store {root}", "records.root") from error
    finally:
        if is_new and not any(SHARD_NAME.fullmatch(name) for name in names(root)):
            for name in names(root) if keep_folder else ():
                (root / name).unlink()
            if not keep_folder:
                shutil.rmtree(root, ignore_errors=True)


def names(root: Path) -> list[str]:
    """Return the names of everything in a folder, sorted."""
    return sorted(path.name for path in root.iterdir())


def _bring_up_to_date(
    experiment: Experiment, sources: Sequence[CaseSource], root: Path, first_shard: int
) -> Manifest:
    journal = Journal(root)
    old = read_manifest(root)
    rows_before = read_rows(root)
    known = _known_rows(rows_before, journal)
    raw = experiment.data.root
    kept = _whole(
        root,
        {
            source.case_id: known[source.case_id]
            for source in sources
            if source.case_id in known
            and not isinstance(source, BrokenSource)
            and source.patient_id == known[source.case_id].patient_id
            and is_current(source, raw, known[source.case_id])
        },
    )
    new = [source for source in sources if source.case_id not in kept]
    # Of a shard that holds a record which nobody needs any more, the other records are moved.
    every = [*rows_before, *(row for _, _, of_shard in journal.shards() for row in of_shard)]
    needed = {(row.shard, row.offset) for row in kept.values()}
    gaps = {row.shard for row in every if (row.shard, row.offset) not in needed}
    moved = [row for row in kept.values() if row.shard in gaps]
    if old and not new and not moved and len(kept) == len(old.cases):
        return old
    bad = _BadCases(experiment)
    for source in new:
        if isinstance(source, BrokenSource):
            bad.add(source, source.reason)
    bad.stop_if_any()
    noted = {row.shard for row in known.values()}
    for name in names(root):  # half-written shards, and whole ones that were never noted
        if INCOMPLETE_NAME.fullmatch(name) or (SHARD_NAME.fullmatch(name) and name not in noted):
            (root / name).unlink()
    journal.start(store_settings(experiment))
    writer = ShardWriter(journal, experiment.records.cases_per_shard, first_shard)
    try:
        for row in moved:
            writer.add(row, read_record(root / row.shard, row.offset, row.case_id))
        _convert_new(experiment, new, kept, writer, bad)
    except UserError:
        writer.finish()  # the cases before the bad one need not be converted again
        raise
    finally:
        writer.abandon()
    rows = kept | {row.case_id: row for row in writer.written}
    if not rows:
        raise UserError(f"no case of data.root={raw} can be used: {bad.skipped[0].reason}")
    return _finish(experiment, root, [rows[s.case_id] for s in sources if s.case_id in rows], bad)


class _BadCases:
    """Collects cases that cannot be stored: the first ends the conversion, or all are left out."""

    def __init__(self, experiment: Experiment) -> None:
        self._skip = experiment.data.on_bad_case == "skip"
        self._root = experiment.data.root
        self.skipped: list[SkippedCase] = []

    def add(self, source: CaseSource, reason: str) -> None:
        self.skipped.append(
            SkippedCase(
                case_id=source.case_id,
                patient_id=source.patient_id,
                reason=reason,
                files=describe(readable(source.files), self._root),
            )
        )

    def stop_if_any(self) -> None:
        if self.skipped and not self._skip:
            others = len(self.skipped) - 1
            more = (
                f"{others} more case(s) are bad too: kerasseg verify names all. " if others else ""
            )
            raise UserError(
                f"{self.skipped[0].reason} {more}To leave bad cases out, set data.on_bad_case=skip."
            )


def _convert_new(
    experiment: Experiment,
    sources: Sequence[CaseSource],
    kept: dict[str, CaseRow],
    writer: ShardWriter,
    bad: _BadCases,
) -> None:
    todo = [source for source in sources if not isinstance(source, BrokenSource)]
    seen = {row.voxel_hash: row.case_id for row in kept.values()}
    enhancing = {row.enhancing_id: row.case_id for row in kept.values()}
    described = f"Converting {len(todo)} cases" if len(todo) > 1 else "Converting 1 case"
    first = True
    for done in track(convert_cases(experiment, todo), len(todo), described) if todo else ():
        refusal = done.refusal
        if done.row and done.row.voxel_hash in seen:
            refusal = (
                f"{done.source.case_id}: has the same voxels as {seen[done.row.voxel_hash]}: one "
                "scan under two names would stand on both sides of a split; remove one."
            )
        if refusal or done.row is None:
            bad.add(done.source, refusal)
            bad.stop_if_any()
            continue
        enhancing[done.row.enhancing_id] = done.row.case_id
        check_enhancing_ids(enhancing)
        seen[done.row.voxel_hash] = done.row.case_id
        if first:
            require_space(  # else the disk would be full hours later
                writer.root.resolve(),
                (len(done.payload) + FRAMING_BYTES) * len(todo),
                f"the store needs for {len(todo)} cases about",
                "free some space, or name a folder on another disk with records.root=FOLDER.",
            )
            first = False
        writer.add(done.row, done.payload)
    writer.finish()


def _known_rows(rows: list[CaseRow], journal: Journal) -> dict[str, CaseRow]:
    """Return rows by case id whose record can be there.

    Where the manifest and the journal both have a row, the journal's is the later one and counts.
    """
    sizes = {shard: size for shard, size, _ in journal.shards()}
    for row in rows:
        path = journal.root / row.shard
        end = row.offset + FRAMING_BYTES + row.payload_bytes
        if path.exists() and path.stat().st_size >= end:
            sizes.setdefault(row.shard, path.stat().st_size)
    found = {}
    for row in [*rows, *(row for _, _, of_shard in journal.shards() for row in of_shard)]:
        path = journal.root / row.shard
        if row.shard in sizes and path.exists() and path.stat().st_size == sizes[row.shard]:
            found[row.case_id] = row
    return found


def _whole(root: Path, rows: dict[str, CaseRow]) -> dict[str, CaseRow]:
    """Keep the rows whose record can be read back as it was written."""
    whole = {}
    for row in track(rows.values(), len(rows), f"Checking {len(rows)} records") if rows else ():
        if is_damaged(root, row) is None:
            whole[row.case_id] = row
    return whole


def _finish(experiment: Experiment, root: Path, rows: list[CaseRow], bad: _BadCases) -> Manifest:
    settings = store_settings(experiment)
    raw = experiment.data.root
    manifest = Manifest(
        settings=settings,
        fingerprint=fingerprint(settings),
        data_fingerprint=fingerprint([(row.case_id, row.checksum) for row in rows]),
        data_root=printable(str(raw.resolve())) if raw else None,
        shards={shard: (root / shard).stat().st_size for shard in sorted({r.shard for r in rows})},
        cases=rows,
        skipped=bad.skipped,
    )
    manifest.write(root)
    Journal(root).remove()
    for name in names(root):
        if SHARD_NAME.fullmatch(name) and name not in manifest.shards:
            (root / name).unlink()
    return manifest
