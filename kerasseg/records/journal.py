"""`journal.jsonl`: the finished shards of a conversion that is still going on, or was killed."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kerasseg.records.manifest import CaseRow
from kerasseg.write_aside import write_aside

FILE_NAME = "journal.jsonl"


@dataclass(frozen=True)
class Journal:
    """The file in `root`: the settings in its first line, then a line for every shard.

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
        with write_aside(self.path, "records.root") as temporary:
            temporary.write_text("".join(json.dumps(li) + "\n" for li in lines), encoding="utf-8")

    def add(self, shard: str, size: int, rows: list[CaseRow]) -> None:
        """Note a finished shard of `size` bytes."""
        values = {"shard": shard, "bytes": size, "rows": [r.model_dump(mode="json") for r in rows]}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def settings(self) -> dict[str, Any] | None:
        """The settings of the conversion, or None where no journal was begun."""
        lines = self._lines()
        return lines[0].get("settings") if lines else None

    def shards(self) -> list[tuple[str, int, list[CaseRow]]]:
        """Name, size in bytes and rows of every shard noted."""
        return [
            (line["shard"], line["bytes"], [CaseRow.model_validate(row) for row in line["rows"]])
            for line in self._lines()[1:]
        ]

    def remove(self) -> None:
        """The conversion is done."""
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
