"""A conversion that is killed goes on; a second one at the same time waits for the first."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kerasseg.errors import UserError
from kerasseg.files import file_lock
from kerasseg.records.store import open_store, update_store
from tests.conftest import phantom_experiment

KILLS = int(os.environ.get("KERASSEG_TEST_KILLS", "1"))
PHANTOMS = "data.phantom={cases: 5, shape: [16,20,18], seed: 5}"


def test_dying_at_any_write_loses_no_finished_shard(tmp_path):
    """Every write of a conversion of 5 cases in shards of 2 is once the last one."""
    script = Path(__file__).with_name("die_everywhere.py")
    command = [sys.executable, script, tmp_path, PHANTOMS]
    command += ["records.workers=1", "records.cases_per_shard=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path.cwd())
    assert done.returncode == 0, done.stderr
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(runs) > 30 and all(run["died"] for run in runs[:-1]) and not runs[-1]["died"]
    for run in runs:
        assert run["same"] and not run["damaged"] and not run["leftovers"], run
        assert set(run["noted"]) <= set(run["kept"]), run
    assert max(len(run["noted"]) for run in runs) == 3, "a late death keeps every shard"


def count_shards(root: Path) -> int:
    return len(list(root.glob("shard-*")))


def test_kill_at_random_moments(tmp_path):
    """The real command with two processes, killed with its children again and again."""
    overrides = [
        "data.phantom={cases: 12, shape: [32,40,36], seed: 5}",
        "records.cases_per_shard=2",
        "records.workers=2",
        f"records.root={tmp_path / 'store'}",
    ]
    command = [sys.executable, "-m", "kerasseg.cli", "convert", *overrides]
    store_root, rng = tmp_path / "store", random.Random(0)
    progress: list[int] = []
    for kill in range(KILLS):
        process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
        wanted = count_shards(store_root) + kill % 2
        while process.poll() is None and not (
            (store_root / "journal.jsonl").exists() and count_shards(store_root) >= wanted
        ):
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.2))
        if process.poll() is not None:
            break
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        progress.append(count_shards(store_root))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert progress and progress == sorted(progress), "finished shards are never lost"
    store = update_store(phantom_experiment(tmp_path, *overrides))
    assert len(store.rows) == 12 and not store.damaged_records()
    assert not [p.name for p in store.root.iterdir() if "incomplete" in p.name]


def test_a_journal_cut_in_the_middle_of_a_line(tmp_path):
    experiment = phantom_experiment(tmp_path, "records.cases_per_shard=2")
    store = open_store(experiment)
    # Back to the moment before the end: only a journal, whose last line is torn.
    head = {"settings": store.manifest.settings}
    lines = [json.dumps(head)]
    for shard, size in store.manifest.shards.items():
        rows = [r.model_dump(mode="json") for r in store.manifest.cases if r.shard == shard]
        lines.append(json.dumps({"shard": shard, "bytes": size, "rows": rows}))
    (store.root / "journal.jsonl").write_text("\n".join(lines)[:-40])
    for name in ("store.json", "manifest.jsonl"):
        (store.root / name).unlink()
    inodes = {p.name: p.stat().st_ino for p in store.root.glob("shard-*")}
    again = open_store(experiment)
    assert again.manifest.data_fingerprint == store.manifest.data_fingerprint
    kept = sorted(n for n in inodes if (store.root / n).exists())
    assert kept[:3] == ["shard-00000.tfrecord", "shard-00001.tfrecord", "shard-00002.tfrecord"]
    assert all((store.root / n).stat().st_ino == inodes[n] for n in kept[:3])


def test_an_unfinished_conversion_with_other_settings_is_refused(tmp_path):
    store = open_store(phantom_experiment(tmp_path))
    (store.root / "journal.jsonl").write_text(
        json.dumps({"settings": store.manifest.settings}) + "\n"
    )
    (store.root / "store.json").unlink()
    with pytest.raises(UserError, match=r"unfinished conversion was made with other settings: "):
        open_store(phantom_experiment(tmp_path, "data.modalities=[t1]"))


def start_kerasseg(*arguments: str | Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "kerasseg.cli", *arguments]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_second_conversion_waits_and_goes_on_when_the_first_is_killed(tmp_path):
    overrides = [PHANTOMS, f"records.root={tmp_path / 'store'}"]
    code = (
        "import sys, time, pathlib\n"
        "from kerasseg.files import file_lock\n"
        "with file_lock(pathlib.Path(sys.argv[1]), 'converts into this store', 'records.root'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "store" / ".lock"],
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        second = start_kerasseg("convert", *overrides)
        assert re.match(
            rf"Waiting for process {holder.pid} on .*, which converts into this store since "
            rf"\d{{4}}-\d\d-\d\d \d\d:\d\d: {tmp_path}/store",
            second.stderr.readline(),
        )
        holder.kill()
    second.communicate(timeout=300)
    assert second.returncode == 0
    assert len(open_store(phantom_experiment(tmp_path, PHANTOMS)).rows) == 5


def test_of_two_processes_that_need_a_new_store_one_converts_and_both_use_it(tmp_path):
    """They are what two folds started together do; the reading process holds the first one up."""
    overrides = [PHANTOMS, f"records.root={tmp_path / 'store'}", "records.workers=1"]
    overrides += ["records.cases_per_shard=1"]
    code = (
        "import sys\n"
        "from kerasseg.config.load import load_experiment\n"
        "from kerasseg.records.store import open_store\n"
        "print(open_store(load_experiment(None, sys.argv[1:])).manifest.data_fingerprint)\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code, *overrides],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    printed = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], printed
    assert printed[0][0] == printed[1][0] != ""
    assert sum("Converting 5 cases" in errors for _, errors in printed) == 1


def test_the_waiting_process_makes_the_folder_anew_when_the_first_one_removed_it(tmp_path):
    """A conversion that fails early removes its new folder, and with it the file that is locked."""
    lock = tmp_path / "store" / ".lock"
    ended = []

    def wait() -> None:
        with file_lock(lock, "waits", "records.root"):
            assert lock.read_text().startswith("process ")
            ended.append(True)

    with file_lock(lock, "fails", "records.root"):
        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(0.5)
        shutil.rmtree(lock.parent)
    thread.join(timeout=30)
    assert ended and lock.exists()


def test_a_first_conversion_that_fails_leaves_no_new_folder(brats_experiment, brats_root, tmp_path):
    for segmentation in brats_root.glob("*/*_seg.nii.gz"):
        segmentation.unlink()
    with pytest.raises(UserError, match="has no segmentation"):
        open_store(brats_experiment())
    assert not (tmp_path / "store").exists()
