"""Searches without what takes their time, where a test is about something else."""

import pytest


@pytest.fixture
def no_scans_no_page(monkeypatch):
    """A search neither converts scans nor draws its page; those in real processes do both."""
    monkeypatch.setattr("kerasseg.tuning.tune.open_store", lambda experiment: None)
    monkeypatch.setattr("kerasseg.tuning.tune.open_split", lambda store, settings: None)
    monkeypatch.setattr(
        "kerasseg.tuning.output.write_tune_report", lambda folder: folder / "tune_report.html"
    )
