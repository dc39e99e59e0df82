"""A chief and two workers as users start them: three processes of `tune.py`, real trials."""

import socket

from kerasseg.config.load import load_experiment
from kerasseg.tuning.search import load_search
from tests.program import Program
from tests.training.test_resume import QUICK
from tests.tuning.searches import records, write_files


def start(path, *arguments, **environment):
    return Program(["tune.py", "--config", path, *arguments], env=environment)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_a_chief_and_two_workers_share_the_trials(tmp_path):
    """One worker is named by options, the other by KerasTuner's environment variables."""
    space = {"optimizer.learning_rate": {"choice": [1.0e-3, 3.0e-3, 1.0e-2, 3.0e-2]}}
    path = write_files(tmp_path, space, "grid", [*QUICK, "training.epochs=1"])
    address = f"127.0.0.1:{free_port()}"
    host, port = address.split(":")
    named = {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
    processes = {
        "chief": start(path, "--role", "chief", "--address", address),
        "one": start(path, "--role", "worker", "--address", address, "--worker", "one"),
        "two": start(path, **named, KERASTUNER_TUNER_ID="two"),
    }
    try:
        codes = {name: process.wait(400) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    shown = {name: process.stdout + process.stderr for name, process in processes.items()}
    assert codes == dict.fromkeys(processes, 0), shown
    search = load_search(path)
    found = records(search)
    assert [record["status"] for record in found] == ["completed"] * 4
    assert {record["worker"] for record in found} == {"one", "two"}
    values = [record["values"]["optimizer.learning_rate"] for record in found]
    assert sorted(values) == [1.0e-3, 3.0e-3, 1.0e-2, 3.0e-2]
    best = load_experiment(search.folder / "best.yaml")
    winner = max(found, key=lambda record: record["score"])
    assert best.optimizer.learning_rate == winner["values"]["optimizer.learning_rate"]
    assert "tune_report.html" in shown["chief"] and "Next      python train.py" in shown["chief"]
    assert (search.folder / "tune_report.html").exists()
