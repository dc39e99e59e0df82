"""Cases of a store through a predictor."""

import time
from collections.abc import Iterator, Sequence

from kerasseg.evaluation.case_files import CaseFiles
from kerasseg.evaluation.case_pair import CasePair
from kerasseg.evaluation.whole_volume import whole_volume
from kerasseg.inference.ensemble import Ensemble
from kerasseg.inference.predictor import Predictor
from kerasseg.progress import track
from kerasseg.records.store import RecordStore


def predicted_cases(
    predictor: Predictor | Ensemble,
    store: RecordStore,
    case_ids: Sequence[str],
    split: str,
    files: CaseFiles | None = None,
) -> Iterator[CasePair]:
    """Segment cases one after the other, as whole scans on the store's grid, and write their
    `files`.

    Probabilities count in the voxels of the brain: air would only make a calibration look good.
    """
    words = f"Segmenting {len(case_ids)} whole case{'' if len(case_ids) == 1 else 's'}"
    for case_id in track(case_ids, len(case_ids), words):
        stored = store.load(case_id)
        case = stored.case
        assert case.label is not None  # a store holds labelled cases only
        started = time.monotonic()
        if isinstance(predictor, Ensemble):  # votes are of masks, some post-processing is in mm
            probabilities = predictor.probabilities(case.image, case.spacing)
        else:
            probabilities = predictor.probabilities(case.image)
        masks = predictor.masks_of(probabilities, case.spacing)
        seconds = time.monotonic() - started
        if files is not None:
            files.write(store.rows[case_id], stored, predictor, probabilities, masks)
        yield CasePair(
            case_id=case_id,
            split=split,
            truth=whole_volume(stored, case.label),
            masks=whole_volume(stored, masks),
            spacing=case.spacing,
            patient_id=case.patient_id,
            probabilities=whole_volume(stored, probabilities),
            inside=whole_volume(stored, (case.image != 0).any(axis=-1) | (case.label > 0)),
            seconds=seconds,
        )
