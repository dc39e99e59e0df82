"""What `--then-train` becomes when the search is over."""

import os
import sys

import pytest

from kerasseg.cli.train import become_train
from kerasseg.config.load import dump_experiment
from tests.conftest import phantom_experiment


class Became(Exception):
    """Stands for the process that this one turns into."""


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command that an experiment is trained with."""

    def became(program, arguments):
        raise Became(program, arguments)

    monkeypatch.setattr(os, "execv", became)

    def found(*overrides):
        best = tmp_path / "best.yaml"
        best.write_text(dump_experiment(phantom_experiment(tmp_path, *overrides)))
        with pytest.raises(Became) as trained:
            become_train(best)
        program, arguments = trained.value.args
        assert program == sys.executable and arguments[-1 - arguments.count("--resume")] == str(
            best
        )
        return arguments[4:]

    return found


def test_a_run_that_was_begun_goes_on_and_one_of_other_values_is_left(tmp_path, command):
    best = str(tmp_path / "best.yaml")
    assert command() == ["--config", best]
    experiment = phantom_experiment(tmp_path)
    folder = experiment.run.root / experiment.run_name
    folder.mkdir(parents=True)
    assert command() == ["--config", best], "it was ended before it could be gone on with"
    (folder / "config.yaml").write_text(dump_experiment(experiment))
    assert command() == ["--config", best, "--resume"]
    assert command("optimizer.learning_rate=0.5") == ["--config", best]
