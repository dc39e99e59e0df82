"""Going on without records that are damaged on the disk (records.on_damaged_record=skip)."""

from kerasseg.errors import UserError
from kerasseg.records.parts import SIDES
from kerasseg.records.split import Split
from kerasseg.records.store import RecordStore


def leave_out_damaged(store: RecordStore, split: Split) -> tuple[Split, dict[str, str]]:
    """Read every record of `split`: the split without the damaged ones, and what is wrong with
    each (case id -> message).

    Raises `UserError` if that leaves nobody to train or to validate on.
    """
    sides = {side: getattr(split, side) for side in SIDES}
    damaged = store.damaged_records(
        list(dict.fromkeys(case_id for case_ids in sides.values() for case_id in case_ids))
    )
    sound = {side: tuple(c for c in cases if c not in damaged) for side, cases in sides.items()}
    for side in ("train", "validation"):
        if not sound[side]:
            cases = sides[side]
            raise UserError(
                f"records.on_damaged_record=skip leaves no {side} case: all {len(cases)} of them "
                f"are damaged, the first: {damaged[cases[0]].rstrip('.')}. Convert anew with "
                "kerasseg convert --overwrite."
            )
    left = Split(sound["train"], sound["validation"], sound["test"], split.overfit_check)
    return left, damaged
