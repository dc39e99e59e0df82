"""What `kerasseg predict` says at its end."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from kerasseg.prediction.predict_files import Outcome


def show_outcome(outcome: Outcome, output: Path, console: Console) -> None:
    """How many cases there are now, and a table of those that failed, and why."""
    words = [f"{len(outcome.written)} case(s) written to {output}"]
    if outcome.skipped:
        words.append(f"{len(outcome.skipped)} skipped that were finished (--overwrite: anew)")
    if outcome.failed:
        words.append(f"{len(outcome.failed)} failed")
    console.print(", ".join(words) + ".", highlight=False, markup=False, soft_wrap=True)
    if outcome.failed:
        table = Table("case", "why it failed")
        for case_id, reason in outcome.failed.items():
            table.add_row(_plain(case_id), _plain(reason))
        console.print(table)


def _plain(words: str) -> str:
    """Square brackets are no markup."""
    return words.replace("[", "\\[")
