"""`CaseSource`: where one case lies, known without opening it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kerasseg.datasets.case import Case
from kerasseg.errors import UserError


class CaseSource(Protocol):
    """A case that can be loaded; small and picklable, so that worker processes take it.

    `files` are the raw files (empty for generated cases).
    """

    @property
    def case_id(self) -> str: ...

    @property
    def patient_id(self) -> str: ...

    @property
    def files(self) -> tuple[Path, ...]: ...

    def load(self) -> Case:
        """Read the case. Raises `UserError` naming the file that is damaged."""
        ...


@dataclass(frozen=True)
class BrokenSource:
    """A case that was seen to be wrong before any of its files was opened.

    It takes its place among the others, so that one bad case does not hide them; `load` raises
    `UserError` with the `reason`.
    """

    case_id: str
    patient_id: str
    files: tuple[Path, ...]
    reason: str

    def load(self) -> Case:
        raise UserError(self.reason)
