"""`verify.json`: the verification for programs."""

import json
from dataclasses import asdict
from pathlib import Path

from kerasseg.verification.verification import Verification
from kerasseg.write_aside import write_aside


def write_json(verification: Verification, path: Path) -> None:
    """Write everything that was found to `path`, in one step."""
    values = {
        "subject": verification.subject,
        "root": str(verification.root) if verification.root else None,
        "ok": verification.ok,
        "counts": verification.counts,
        "findings": [asdict(finding) for finding in verification.findings],
        "cases": [{"verdict": case.verdict} | asdict(case) for case in verification.cases],
    }
    with write_aside(path, "--output") as temporary:
        temporary.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
