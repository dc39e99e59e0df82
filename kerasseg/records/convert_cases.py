"""Raw cases -> encoded records, in parallel processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from kerasseg.config import Experiment
from kerasseg.datasets.read_case import read_case
from kerasseg.datasets.source import CaseSource
from kerasseg.errors import UserError
from kerasseg.in_processes import in_processes
from kerasseg.records.manifest import CaseRow
from kerasseg.records.schema import encode
from kerasseg.records.source_files import describe
from kerasseg.runtime import usable_cores


@dataclass
class Converted:
    """One case: its record and its row, which has no place in a shard yet; or why there is none."""

    source: CaseSource
    row: CaseRow | None
    payload: bytes
    refusal: str = ""


def convert_cases(experiment: Experiment, sources: Sequence[CaseSource]) -> Iterator[Converted]:
    """Converted cases in order; at most one more than there are processes is in memory."""
    workers = min(experiment.records.workers or usable_cores(), len(sources))
    return in_processes(partial(_convert, experiment), sources, workers, _died)


def _died(source: CaseSource) -> NoReturn:
    # Never skipped as a bad case: the machine is at fault, and the next try may succeed.
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
        encoded = encode(case, records.foreground_voxels, records.compression)
    except UserError as error:
        return Converted(source, None, b"", str(error))
    except MemoryError:
        _died(source)
    except Exception as error:
        # A file that our readers did not expect is a bad case like any other.
        reason = f"{source.case_id}: cannot be converted ({type(error).__name__}: {error})."
        return Converted(source, None, b"", reason)
    row = CaseRow.model_validate(
        {
            "case_id": source.case_id,
            "patient_id": source.patient_id,
            "shard": "",
            "offset": 0,
            "payload_bytes": len(encoded.payload),
            "checksum": 0,
            "shape": encoded.shape,
            "full_shape": encoded.full_shape,
            "crop_offset": encoded.offset,
            "spacing": case.spacing,
            "voxels": encoded.voxels,
            "mean": encoded.mean,
            "std": encoded.std,
            "voxel_hash": encoded.voxel_hash,
            "files": files,
            "attributes": case.attributes,
            "notes": case.notes,
            "stored_voxels": encoded.stored_voxels,
        }
    )
    return Converted(source, row, encoded.payload)
