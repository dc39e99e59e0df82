"""`Verification`: everything that was found in a data set or a store."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from kerasseg.datasets.findings import Finding

Verdict = Literal["ok", "warning", "error"]


def verdict_of(findings: list[Finding]) -> Verdict:
    """The gravest severity among findings."""
    severities = {finding.severity for finding in findings}
    return "error" if "error" in severities else "warning" if severities else "ok"


@dataclass
class CaseReport:
    """One case; what a case that could not be read would have told is None.

    files:      number of its files; bytes: their size together
    shape:      (D, H, W); spacing: (D, H, W) in mm
    voxels:     class -> labelled voxels; None without a segmentation
    voxel_hash: SHA-256 of the image within its signal's box; None where there is no signal
    """

    case_id: str
    patient_id: str
    files: int
    bytes: int
    shape: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    modalities: tuple[str, ...] | None = None
    voxels: dict[str, int] | None = None
    voxel_hash: str | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        return verdict_of(self.findings)


@dataclass
class Verification:
    """All cases below `root` (None: generated), in order, and what they show only together."""

    subject: str
    root: Path | None
    cases: list[CaseReport]
    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[Verdict, int]:
        """Cases of each verdict."""
        found = Counter(case.verdict for case in self.cases)
        return {"ok": found["ok"], "warning": found["warning"], "error": found["error"]}

    @property
    def ok(self) -> bool:
        """Whether nothing is an error."""
        return self.counts["error"] == 0 and verdict_of(self.findings) != "error"
