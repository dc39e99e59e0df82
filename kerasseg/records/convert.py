"""Cases -> a new record store, in parallel processes, whole or not at all."""

import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kerasseg.config import Experiment
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.source import CaseSource
from kerasseg.errors import UserError, storage_error
from kerasseg.progress import track
from kerasseg.records.manifest import CaseRow, Manifest, fingerprint, store_settings
from kerasseg.records.schema import EncodedCase, encode
from kerasseg.records.tfrecord import FRAMING_BYTES, write_record
from kerasseg.runtime import usable_cores

_Converted = tuple[CaseSource, EncodedCase, tuple[float, float, float], list[str]]


def convert(experiment: Experiment, root: Path) -> Manifest:
    """Convert every case of `experiment.data` into a new store at `root`.

    The store is built in a hidden folder beside `root` and renamed when its last byte is
    written: a folder with a manifest is always whole. Raises `UserError` for a bad case, a
    missing segmentation, a full disk or a folder that cannot be written, and leaves nothing.
    """
    sources = discover(experiment.data)
    with _staging(root) as staging:
        manifest = _write_store(experiment, sources, staging)
    return manifest


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder that becomes `root` on success and vanishes on any failure."""
    staging = root.parent / f".{root.name}.incomplete-{os.getpid()}"
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        staging.mkdir()
        yield staging
        staging.rename(root)
    except OSError as error:
        raise storage_error(error, f"Writing the record store {root}", "records.root") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(root: Path) -> None:
    """Remove what conversions left that were killed before they could tidy up."""
    for folder in root.parent.glob(f".{root.name}.incomplete-*"):
        process = folder.name.rpartition("-")[2]
        try:
            os.kill(int(process), 0)
        except (ProcessLookupError, ValueError):
            shutil.rmtree(folder, ignore_errors=True)
        except PermissionError:
            pass  # alive, and somebody else's


def _write_store(experiment: Experiment, sources: Sequence[CaseSource], staging: Path) -> Manifest:
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    per_shard = experiment.records.cases_per_shard
    shard_count = -(-len(sources) // per_shard)
    rows: list[CaseRow] = []
    shards: dict[str, int] = {}
    file: BinaryIO | None = None
    converted = _convert_all(sources, experiment.records.foreground_voxels, workers)
    try:
        for source, encoded, spacing, notes in track(
            converted, len(sources), f"Converting {len(sources)} cases"
        ):
            if len(rows) % per_shard == 0:
                if file:
                    file.close()
                name = f"shard-{len(shards):05d}-of-{shard_count:05d}.tfrecord"
                file = (staging / name).open("wb")
            assert file is not None
            offset = file.tell()
            checksum = write_record(file, encoded.payload)
            shards[name] = file.tell()
            rows.append(_row(source, encoded, spacing, notes, name, offset, checksum))
            if len(rows) == 1:
                _check_space(staging, len(encoded.payload), len(sources))
    finally:
        if file:
            file.close()
    settings = store_settings(experiment)
    manifest = Manifest(
        settings=settings,
        fingerprint=fingerprint(settings),
        data_fingerprint=fingerprint([(row.case_id, row.checksum) for row in rows]),
        data_root=str(experiment.data.root.resolve()) if experiment.data.root else None,
        shards=shards,
        cases=rows,
    )
    manifest.write(staging)
    return manifest


def source_bytes(source: CaseSource) -> int:
    """Size of a case's raw files together."""
    return sum(path.stat().st_size for path in source.files)


def _row(
    source: CaseSource,
    encoded: EncodedCase,
    spacing: tuple[float, float, float],
    notes: list[str],
    shard: str,
    offset: int,
    checksum: int,
) -> CaseRow:
    return CaseRow.model_validate(
        {
            "case_id": source.case_id,
            "patient_id": source.patient_id,
            "shard": shard,
            "offset": offset,
            "payload_bytes": len(encoded.payload),
            "checksum": checksum,
            "shape": encoded.shape,
            "full_shape": encoded.full_shape,
            "crop_offset": encoded.offset,
            "spacing": spacing,
            "voxels": encoded.voxels,
            "mean": encoded.mean,
            "std": encoded.std,
            "files": [path.name for path in source.files],
            "file_bytes": source_bytes(source),
            "notes": notes,
        }
    )


def _check_space(staging: Path, payload_bytes: int, cases: int) -> None:
    """Refuse at the first case what would fail hours later."""
    needed = (payload_bytes + FRAMING_BYTES) * (cases - 1)
    free = shutil.disk_usage(staging).free
    if needed > free:
        raise UserError(
            f"{staging.parent.resolve()}: the store needs about {needed / 1e9:.3g} GB more "
            f"({cases} cases of {payload_bytes / 1e6:.3g} MB), but only {free / 1e9:.3g} GB are "
            "free: free some space, or name a folder on another disk with records.root=FOLDER."
        )


def _convert_all(
    sources: Sequence[CaseSource], foreground_voxels: int, workers: int
) -> Iterable[_Converted]:
    """Converted cases in order; at most `workers` + 1 of them are in memory."""
    if workers == 1:
        for source in sources:
            yield _convert_one(source, foreground_voxels)
        return
    # Spawned, not forked: a parent that has imported TensorFlow has threads a fork would lose.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        pending: deque[Future[_Converted]] = deque()
        try:
            for source in sources:
                pending.append(pool.submit(_convert_one, source, foreground_voxels))
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "A converting process ended at once: either memory ran out (try "
                "records.workers=1), or a script of yours that calls kerasseg lacks "
                "`if __name__ == '__main__':` around the call."
            ) from None
        finally:
            for future in pending:
                future.cancel()


def _convert_one(source: CaseSource, foreground_voxels: int) -> _Converted:
    case = source.load()
    if case.label is None:
        raise UserError(
            f"{source.files[0].parent if source.files else source.case_id}: case "
            f"{source.case_id} has no segmentation, which training needs: add it, or remove the "
            "case from data.root."
        )
    return source, encode(case, foreground_voxels), case.spacing, case.notes
