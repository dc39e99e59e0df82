"""A chief and its workers as users start them: processes of `tune.py`. Their trials are a tiny
program that waits to be let go; real ones are trained in test_kill."""

import socket
import time

import psutil

from kerasseg.config.load import load_experiment
from kerasseg.tuning.search import load_search
from tests.program import Program
from tests.tuning.searches import records, write_files

TRIAL = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
with (folder / "began").open("a") as file: file.write("x")
for _ in range(5000):
    if (folder / "go").exists(): break
    time.sleep(0.02)
result = {"status": "completed", "score": 0.5, "epochs": 2, "curve": [0.25, 0.5]}
(folder / "result.json").write_text(json.dumps(result))
"""
TUNE = f"""
import sys
import kerasseg.tuning.trial_process
from kerasseg.cli.main import main
kerasseg.tuning.trial_process._COMMAND = (sys.executable, "-c", {TRIAL!r})
sys.argv.insert(1, "tune")
main()
"""


def until(condition, *processes):
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end
        for process in processes:
            assert process.poll() is None, process.stdout + process.stderr
        time.sleep(0.02)


def test_trials_go_on_while_the_chief_is_away_and_none_is_lost_or_run_twice(tmp_path):
    """Two trials are under way when the chief is killed. One ends while it is away; its worker is
    given the third trial by the new chief, not the one that still runs.

    One worker is named by options, the other by KerasTuner's environment variables.
    """
    path = write_files(tmp_path, max_trials=3, worker_timeout=120.0)
    program = tmp_path / "program.py"
    program.write_text(TUNE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host, port = free.getsockname()
    address = f"{host}:{port}"
    variables = {
        "KERASTUNER_ORACLE_IP": host,
        "KERASTUNER_ORACLE_PORT": str(port),
        "KERASTUNER_TUNER_ID": "two",
    }
    jobs = [tmp_path / "tuning" / "toy" / "processes" / f"trial_{n:04d}" for n in range(1, 4)]

    def start(*arguments, **environment):
        return Program([program, "--config", path, *arguments], env=environment)

    as_chief = ("--role", "chief", "--address", address)
    processes = [
        start(*as_chief),
        start("--role", "worker", "--address", address, "--worker", "one"),
        start(**variables),
    ]
    chief, *workers = processes
    try:
        until(lambda: all((job / "began").exists() for job in jobs[:2]), *processes)
        trials = [trial for worker in workers for trial in psutil.Process(worker.pid).children()]
        chief.kill()
        (jobs[1] / "go").touch()
        until((jobs[1] / "result.json").exists, *workers)
        assert sum(trial.is_running() for trial in trials) >= 1, "the other goes on"
        processes.append(start(*as_chief))
        until((jobs[2] / "began").exists, *workers, processes[-1])
        for job in (jobs[0], jobs[2]):
            (job / "go").touch()
        codes = [process.wait(100) for process in processes[1:]]
    finally:
        for process in processes:
            process.kill()
    shown = [process.stdout + process.stderr for process in processes]
    assert codes == [0, 0, 0], shown
    assert [(job / "began").read_text() for job in jobs] == ["x"] * 3, "none was run twice"
    search = load_search(path)
    found = records(search)
    assert [record["status"] for record in found] == ["completed"] * 3
    assert {found[0]["worker"], found[1]["worker"]} == {"one", "two"}
    assert found[2]["worker"] == found[1]["worker"]
    assert "had trials, which are kept for them" in shown[-1]
    assert "tune_report.html" in shown[-1] and "Next      kerasseg train" in shown[-1]
    assert (search.folder / "tune_report.html").exists()
    assert load_experiment(search.folder / "best.yaml").run.name == "toy_best"
