"""Records -> TFRecord files that are whole or not there."""

import re
from pathlib import Path
from typing import BinaryIO

from kerasseg.records.journal import Journal
from kerasseg.records.manifest import CaseRow
from kerasseg.records.tfrecord import write_record

SHARD_NAME = re.compile(r"shard-(\d+)\.tfrecord")
INCOMPLETE_NAME = re.compile(r"\.shard-\d+\.tfrecord\.incomplete")


class ShardWriter:
    """Writes records into new shards of `per_shard` cases below the journal's folder.

    A shard grows under a hidden name; when it is full it gets its own and is noted in the journal.
    """

    def __init__(self, journal: Journal, per_shard: int) -> None:
        self._journal = journal
        self.root = journal.root
        self._per_shard = per_shard
        numbers = [SHARD_NAME.fullmatch(path.name) for path in journal.root.iterdir()]
        self._number = max((int(match[1]) for match in numbers if match), default=-1) + 1
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
