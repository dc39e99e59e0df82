"""A verification as a table for people and as `verify.json` for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kerasseg import files
from kerasseg.data_report.verify import CaseReport, Verdict, Verification
from kerasseg.datasets.checks import Finding, format_sizes
from kerasseg.errors import printable

_STYLES: dict[Verdict, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}

_ALL_ROWS = 20
"""Cases up to which the good ones have a row too."""
_WIDE = 110
"""Width of the screen from which there is room for voxel sizes and counts."""


def write_json(verification: Verification, path: Path) -> None:
    """Write everything that was found as JSON, in one step."""
    values = {
        "subject": verification.subject,
        "root": str(verification.root) if verification.root else None,
        "ok": verification.ok,
        "counts": verification.counts,
        "findings": [asdict(finding) for finding in verification.findings],
        "cases": [{"verdict": case.verdict} | asdict(case) for case in verification.cases],
    }
    files.write_json(path, values, "--output", indent=1)


def print_verification(verification: Verification, console: Console) -> None:
    """Print a table of the cases and a line that sums them up. A wide console has more columns."""
    show_all = len(verification.cases) <= _ALL_ROWS
    rows = [case for case in verification.cases if show_all or case.findings]
    if rows or verification.findings:
        console.print(_table(rows, verification, wide=console.width >= _WIDE))
    others = len(verification.cases) - len(rows)
    if rows and others:
        console.print(f"and {others} case{'' if others == 1 else 's'} without a finding")
    console.print(_summary(verification))


def _table(rows: Sequence[CaseReport], verification: Verification, *, wide: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    # Long names are broken into lines, so that the findings keep room on a narrow screen.
    table.add_column("Case", overflow="fold", max_width=48 if wide else 24)
    table.add_column("Voxels", no_wrap=True)
    if wide:
        table.add_column("mm", no_wrap=True)
        table.add_column("Segmented voxels")
        table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("Found", overflow="fold", ratio=1)
    for case in rows:
        facts = [format_sizes(case.shape or ())]
        if wide:
            voxels = case.voxels or {}
            counts = "  ".join(f"{name} {count:,}" for name, count in voxels.items())
            facts += [format_sizes([round(s, 3) for s in case.spacing or ()]), counts]
            facts.append(f"{case.bytes / 1e6:.1f}")
        found = [
            _format_finding(finding, case.verdict, verification.root) for finding in case.findings
        ]
        verdict = Text(case.verdict, _STYLES[case.verdict])
        table.add_row(verdict, Text(case.case_id), *map(Text, facts), Text("\n").join(found))
    for finding in verification.findings:
        verdict = Text(finding.severity, _STYLES[finding.severity])
        found = [_format_finding(finding, finding.severity, verification.root)]
        table.add_row(verdict, "(the whole set)", *[""] * (4 if wide else 1), *found)
    return table


def _format_finding(finding: Finding, verdict: Verdict, root: Path | None) -> Text:
    """Format a finding. Its severity is named if it is not the verdict of the row."""
    message = finding.message
    if root:
        message = message.replace(f"{root}/", "")  # it would stand in every row
    title = finding.check if finding.severity == verdict else f"{finding.severity}, {finding.check}"
    return Text.assemble((f"{title}: ", _STYLES[finding.severity]), printable(message, keep="\n"))


def _summary(verification: Verification) -> Text:
    counts = verification.counts
    total = len(verification.cases)
    parts = [
        f"{counts['ok']} ok",
        f"{counts['warning']} with warnings",
        f"{counts['error']} with errors",
    ]
    line = f"{total} case{'' if total == 1 else 's'}: {', '.join(parts)}"
    labelled = sum(case.voxels is not None for case in verification.cases)
    if total and not labelled and not counts["error"]:
        line += " (none has a segmentation: they can be predicted, but not trained on)"
    general = len(verification.findings)
    if general:
        line += f"; {general} finding{'' if general == 1 else 's'} about the whole set"
    style: Verdict = "error" if not verification.ok else "ok"
    if verification.ok and (counts["warning"] or general):
        style = "warning"
    return Text(line, _STYLES[style])
