"""A chief that is killed while its workers train, and started again: real processes of `tune.py`,
whose trials are a tiny program that waits to be let go."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from kerasseg.tuning.search import load_search
from tests.tuning.searches import records, write_files
from tests.tuning.test_processes import free_port

ROOT = Path(__file__).parents[2]
TRIAL = """
import json, pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
with (folder / "began").open("a") as file: file.write("x")
while not (folder / "go").exists(): time.sleep(0.02)
result = {"status": "completed", "score": 0.5, "epochs": 2, "curve": [0.25, 0.5]}
(folder / "result.json").write_text(json.dumps(result))
"""
TUNE = f"""
import sys
import kerasseg.tuning.trial_process as execution
from kerasseg.cli.main import main
execution._COMMAND = (sys.executable, "-c", {TRIAL!r})
sys.argv.insert(1, "tune")
main()
"""


def start(path, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", TUNE, "--config", str(path), *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1"},
    )


def until(condition, *processes):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def test_trials_go_on_while_the_chief_is_away_and_none_is_lost_or_run_twice(tmp_path):
    """Two trials are under way when the chief is killed. One ends while it is away; its worker is
    given the third trial by the new chief, not the one that still runs."""
    path = write_files(tmp_path, max_trials=3, parallel=2, worker_timeout=120.0)
    address = f"127.0.0.1:{free_port()}"
    as_chief = ("--role", "chief", "--address", address)
    jobs = [tmp_path / "tuning" / "toy" / "processes" / f"trial_{n:04d}" for n in range(3)]
    processes = [start(path, *as_chief)]
    try:
        worker = start(path, "--role", "worker", "--address", address, "--worker", "w")
        processes.append(worker)
        until(lambda: all((job / "began").exists() for job in jobs[:2]), *processes)
        trials = psutil.Process(worker.pid).children()
        processes[0].send_signal(signal.SIGKILL)
        processes[0].communicate()

        (jobs[1] / "go").touch()
        until((jobs[1] / "result.json").exists, worker)
        assert sum(trial.is_running() for trial in trials) >= 1, "the other goes on"
        processes.append(start(path, *as_chief))
        until((jobs[2] / "began").exists, worker, processes[2])
        for job in (jobs[0], jobs[2]):
            (job / "go").touch()
        shown = [process.communicate(timeout=60)[0] for process in processes[1:]]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes[1:]] == [0, 0], shown
    assert [(job / "began").read_text() for job in jobs] == ["x"] * 3, "none was run twice"
    found = records(load_search(path))
    assert [record["status"] for record in found] == ["completed"] * 3
    assert found[2]["worker"] == found[1]["worker"] != found[0]["worker"]
    assert "had trials, which are kept for them" in shown[1]
