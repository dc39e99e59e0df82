"""Shards, the TFRecord files of a store, and the journal of a conversion that is not finished."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kerasseg.errors import UserError
from kerasseg.files import write_text
from kerasseg.records.manifest import CaseRow
from kerasseg.records.tfrecord import masked_crc, read_record, write_record


def is_damaged(root: Path, row: CaseRow) -> str | None:
    """Say what is wrong with the record of `row` in the store at `root`; None if it is whole."""
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


FILE_NAME = "journal.jsonl"


@dataclass(frozen=True)
class Journal:
    """`journal.jsonl` in `root`: a line with the settings, then a line for every finished shard.

    A line is written when its shard stands under its final name, so every whole line is true; the
    last one may be cut short by a kill and then does not count.
    """

    root: Path

    @property
    def path(self) -> Path:
        return self.root / FILE_NAME

    def start(self, settings: dict[str, Any]) -> None:
        """Begin the journal, or go on with the one there is, without a line that was cut short."""
        lines = self._lines() or [{"settings": settings}]
        write_text(self.path, "".join(json.dumps(li) + "\n" for li in lines), "records.root")

    def add(self, shard: str, size: int, rows: list[CaseRow]) -> None:
        """Note a finished shard of `size` bytes."""
        values = {"shard": shard, "bytes": size, "rows": [r.model_dump(mode="json") for r in rows]}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def settings(self) -> dict[str, Any] | None:
        """Return the settings of the conversion, or None where no journal was begun."""
        lines = self._lines()
        return lines[0].get("settings") if lines else None

    def shards(self) -> list[tuple[str, int, list[CaseRow]]]:
        """Return name, size in bytes and rows of every shard noted."""
        return [
            (line["shard"], line["bytes"], [CaseRow.model_validate(row) for row in line["rows"]])
            for line in self._lines()[1:]
        ]

    def remove(self) -> None:
        """Remove the file when the conversion is done."""
        self.path.unlink(missing_ok=True)

    def _lines(self) -> list[dict[str, Any]]:
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = []
        for line in text.split("\n")[:-1]:  # what follows the last newline was cut short
            try:
                lines.append(json.loads(line))
            except ValueError:
                break
        return lines


SHARD_NAME = re.compile(r"shard-(\d+)\.tfrecord")
INCOMPLETE_NAME = re.compile(r"\.shard-\d+\.tfrecord\.incomplete")


def next_shard(root: Path) -> int:
    """Return the number after that of every shard in a folder."""
    numbers = [SHARD_NAME.fullmatch(path.name) for path in root.iterdir()]
    return max((int(match[1]) for match in numbers if match), default=-1) + 1


class ShardWriter:
    """Writes records into new shards of `per_shard` cases below the journal's folder.

    They are numbered on from the shards in it, and at least from `first`.
    A shard grows under a hidden name; when it is full it gets its own and is noted in the journal.
    """

    def __init__(self, journal: Journal, per_shard: int, first: int = 0) -> None:
        self._journal = journal
        self.root = journal.root
        self._per_shard = per_shard
        self._number = max(first, next_shard(journal.root))
        self._file: BinaryIO | None = None
        self._rows: list[CaseRow] = []
        self.written: list[CaseRow] = []

    def add(self, row: CaseRow, payload: bytes) -> None:
        """Append a record; `row` gets its shard, offset and checksum."""
        if self._file is None:
            self._file = self._incomplete().open("wb")
        offset = self._file.tell()
        checksum = write_record(self._file, payload)
        place = {"shard": self._name(), "offset": offset, "checksum": checksum}
        self._rows.append(row.model_copy(update=place))
        if len(self._rows) == self._per_shard:
            self.finish()

    def finish(self) -> None:
        """Close the shard that is being written, if it holds anything."""
        if self._file is None:
            return
        size = self._file.tell()
        self._file.close()
        self._file = None
        # First the name, then the journal: what the journal says is always there.
        self._incomplete().replace(self._journal.root / self._name())
        self._journal.add(self._name(), size, self._rows)
        self.written += self._rows
        self._rows = []
        self._number += 1

    def abandon(self) -> None:
        """Remove the shard that is being written."""
        if self._file is not None:
            self._file.close()
            self._incomplete().unlink(missing_ok=True)

    def _name(self) -> str:
        return f"shard-{self._number:05d}.tfrecord"

    def _incomplete(self) -> Path:
        return self._journal.root / f".{self._name()}.incomplete"
