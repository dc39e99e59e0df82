"""Whether a record can be read back as it was written."""

from pathlib import Path

from kerasseg.errors import UserError
from kerasseg.records.manifest import CaseRow
from kerasseg.records.tfrecord import masked_crc, read_record


def is_damaged(root: Path, row: CaseRow) -> str | None:
    """What is wrong with the record of `row` in the store at `root`, in words; None if nothing."""
    try:
        payload = read_record(root / row.shard, row.offset, row.case_id)
    except UserError as error:
        return str(error)
    if masked_crc(payload) != row.checksum:
        return (
            f"{root / row.shard}: the record at byte {row.offset} is whole, but it is not the one "
            f"of case {row.case_id} that the manifest describes. Bring the store up to date with "
            "kerasseg convert."
        )
    return None
