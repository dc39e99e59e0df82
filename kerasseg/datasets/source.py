"""`CaseSource`: where one case lies, known without opening it."""

from pathlib import Path
from typing import Protocol

from kerasseg.datasets.case import Case


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
