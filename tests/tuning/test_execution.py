"""The process of an execution as its parent sees it, with programs that train nothing."""

import json
import os
import subprocess
import sys
import threading
import time

import psutil
import pytest

import kerasseg.tuning.trial_process
from kerasseg.tuning.trial_process import TrialJob, run_in_process, trial_environment
from kerasseg.tuning.tune import tune
from tests.conftest import phantom_experiment
from tests.tuning.searches import make_search, records

READS = "import json, os, pathlib, signal, sys, time; folder = pathlib.Path(sys.argv[1]); "
WRITES = (
    READS + "(folder / 'result.json').write_text(json.dumps({'status': 'completed', 'score': 0.5,"
    " 'epochs': 2, 'curve': [0.25, 0.5], 'peak_memory_gib': 1.5}))"
)


@pytest.fixture
def program(monkeypatch):
    """Have another program stand for the trial's."""

    def use(source):
        command = (sys.executable, "-c", source)
        monkeypatch.setattr(kerasseg.tuning.trial_process, "_COMMAND", command)

    return use


def job(folder):
    return TrialJob(folder / "job", phantom_experiment(folder), 2, "val_dice", "max")


def run(folder, stop=None):
    return run_in_process(job(folder), trial_environment(None), stop or threading.Event())


def test_what_the_process_leaves_is_read(tmp_path, program):
    program(WRITES + "; job = json.loads((folder / 'job.json').read_text()); print(job)")
    outcome = run(tmp_path)
    assert (outcome.status, outcome.score, outcome.curve) == ("completed", 0.5, [0.25, 0.5])
    assert outcome.peak_memory_gib == 1.5 and 0 < outcome.minutes < 1
    said = (tmp_path / "job" / "output.txt").read_text()
    assert "'last_epoch': 2" in said and "'objective': 'val_dice'" in said


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "killed by SIGKILL, as the system does when mem"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "the process was killed by SIGSEGV"),
        ("print('one'); print('two', flush=True); os._exit(3)", "code 3, its last line: two"),
    ],
)
def test_a_process_that_ends_without_a_word_was_killed(tmp_path, program, source, reason):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "result.json").write_text('{"status": "completed", "score": 9}')
    program(READS + source)
    outcome = run(tmp_path)
    assert outcome.status == "killed" and reason in outcome.reason and outcome.score is None


def test_a_process_that_is_asked_to_stop_may_save_first(tmp_path, program):
    program(
        READS + "signal.signal(signal.SIGTERM, lambda *a: ((folder / 'result.json').write_text("
        "json.dumps({'status': 'stopped', 'epochs': 1})), os._exit(0)));"
        "(folder / 'ready').touch(); time.sleep(60)"
    )
    stop = threading.Event()

    def ask():
        while not (tmp_path / "job" / "ready").exists():
            time.sleep(0.02)
        stop.set()

    threading.Thread(target=ask).start()
    outcome = run(tmp_path, stop)
    assert (outcome.status, outcome.epochs) == ("stopped", 1)


def test_one_that_does_not_stop_is_ended(tmp_path, program, monkeypatch):
    monkeypatch.setattr(kerasseg.tuning.trial_process, "_SECONDS_TO_SAVE", 0.3)
    program(READS + "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)")
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    began = time.monotonic()
    assert run(tmp_path, stop).status == "stopped" and time.monotonic() - began < 20


def test_the_program_of_a_trial_starts_without_tensorflow():
    """It must heed signals before, and TensorFlow is started without what training needs not."""
    code = (
        "import sys, kerasseg.tuning.trial;"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_trial_knows_when_its_parent_is_gone(tmp_path):
    """The watch of the real program, without TensorFlow: its parent is killed."""
    child = (
        "import os, pathlib, signal, sys, time;"
        "from kerasseg.tuning.trial import _stop_with_parent;"
        f"done = pathlib.Path({str(tmp_path / 'done')!r});"
        "signal.signal(signal.SIGTERM, lambda *a: (done.touch(), os._exit(0)));"
        "_stop_with_parent(); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', sys.argv[1]],"
        "stdin=subprocess.PIPE, start_new_session=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, child], stdout=subprocess.PIPE)
    number = int(process.stdout.readline())
    assert psutil.pid_exists(number)
    process.kill()
    process.wait()
    process.stdout.close()
    end = time.monotonic() + 300
    while not (tmp_path / "done").exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert (tmp_path / "done").exists()


def test_the_watch_for_the_parent_does_not_spoil_the_end_of_a_trial():
    """By Python's own standard input it did: the interpreter aborts if a thread holds its lock."""
    code = "import time, kerasseg.tuning.trial as t; t._stop_with_parent(); time.sleep(0.2)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    assert process.wait() == 0
    process.stdin.close()


def test_a_trial_sees_its_own_gpu_and_no_chief(monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "10.0.0.1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert trial_environment("1")["CUDA_VISIBLE_DEVICES"] == "1"
    seen = trial_environment(None)
    assert seen["CUDA_VISIBLE_DEVICES"] == "0,1" and "KERASTUNER_ORACLE_IP" not in seen
    assert seen["PATH"] == os.environ["PATH"]


@pytest.mark.all_only
def test_twenty_trials_do_not_grow_this_process(tmp_path, program):
    program(WRITES)
    process, sizes = psutil.Process(), []
    # A test before this one may have left a helper of its own, as multiprocessing's tracker is.
    before = set(process.children())
    tune(make_search(tmp_path, max_trials=4))

    def job(*arguments):
        sizes.append(process.memory_info().rss)
        return run_in_process(*arguments)

    search = make_search(tmp_path, max_trials=24)
    tune(search, run_job=job)
    assert len(sizes) == 20 and len(records(search)) == 24
    assert max(sizes[10:]) - max(sizes[:10]) < 4e6, sizes
    assert set(process.children()) <= before, "no process is left"
    assert json.loads((search.folder / "oracle.json").read_text())["oracle"]["end_order"]
