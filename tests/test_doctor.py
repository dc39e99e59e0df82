"""`kerasseg doctor --config`: what it says of a run before it is started."""

import json
import os
import re
from types import SimpleNamespace

import pytest
import tensorflow as tf

from kerasseg import doctor as module
from kerasseg.config.load import DEMO_CONFIG, dump_experiment, load_experiment
from kerasseg.doctor import forecast, share_of_this_machine
from kerasseg.errors import UserError
from kerasseg.pipeline.batches import TrainingBatches
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store
from kerasseg.run_experiment import build_network
from kerasseg.training import checks as memory
from tests.conftest import phantom_experiment
from tests.test_cli import assert_one_sentence, kerasseg, phantom_arguments

TWO_MACHINES = {
    "cluster": {"worker": ["host0:12345", "host1:12345"]},
    "task": {"type": "worker", "index": 1},
}


def said(text):
    """{heading: words} of lines such as 'Memory     a step needs …'."""
    lines = re.findall(r"^(\S+) +(\S.*)$", text, re.MULTILINE)
    return dict(lines)


@pytest.fixture
def hear(monkeypatch, capsys):
    """What is said of an experiment whose batches take these seconds."""

    def listen(experiment, times=(9.0, 0.5, 2.0, 1.0)):
        taken = []

        def time_batches(experiment, devices):
            for seconds in times:
                taken.append(seconds)
                yield seconds

        monkeypatch.setattr(module, "time_batches", time_batches)
        forecast(experiment, share_of_this_machine(experiment))
        return SimpleNamespace(text=(text := capsys.readouterr().out), taken=taken, **said(text))

    return listen


def test_a_small_run_by_the_command_line(tmp_path):
    """Everything measured and nothing written."""
    store = ("records.root=" + str(tmp_path / "store"), "records.workers=1")
    config = tmp_path / "small.yaml"
    arguments = [*phantom_arguments(tmp_path), *store, "training.gradient_accumulation=2"]
    open_store(load_experiment(DEMO_CONFIG, arguments))
    config.write_text(dump_experiment(load_experiment(DEMO_CONFIG, arguments)))
    before = sorted(tmp_path.rglob("*"))
    done = kerasseg("doctor", "--config", str(config))
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    machine, _, run = done.stdout.partition(f"\nThis run: {config}\n")
    # What is free on this machine at the moment decides whether something is wrong with it.
    assert "oneDNN" in machine
    assert re.search(r"^(Nothing is wrong\.|wrong: less than \d+ GB of )", machine, re.MULTILINE)
    words = said(run)
    assert list(words) == [
        *("Network", "Update", "Strategy", "Precision", "Memory", "Batch", "Cases", "Time")
    ]
    assert words["Update"] == "2 batches of 2 patches of 8 x 16 x 12 voxels"
    assert words["Strategy"] == "no strategy (one CPU)"
    assert words["Precision"] == "float32 (no GPU)"
    assert re.match(
        r"a step needs about 0\.4 GB of the [\d.]+ GB available on this", words["Memory"]
    )
    # On a busy machine batches may take so long that fewer than three are measured.
    batch = re.match(r"([\d.]+) s on random data \((3|2|one) measured", words["Batch"])
    assert batch and float(batch[1]) > 0
    assert words["Cases"].startswith("2 train, 1 validate (")
    assert "for an epoch of 1 update," in words["Time"] and "for 2 epochs" in run
    assert "Reading the data, validation and the evaluation at the end come on top." in run


@pytest.mark.parametrize(("memory", "disk"), [(8, 50), (7, 50), (8, 49), (7, 49)])
def test_what_is_free_decides_whether_something_is_wrong(monkeypatch, capsys, memory, disk):
    monkeypatch.setattr(
        module.psutil,
        "virtual_memory",
        lambda: SimpleNamespace(available=memory * 1e9, total=16e9),
    )
    monkeypatch.setattr(
        module.shutil, "disk_usage", lambda _: SimpleNamespace(free=disk * 1e9, total=99e9)
    )
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    monkeypatch.setattr(module.shutil, "which", lambda _: None)
    module.examine()
    text = capsys.readouterr().out
    assert ("less than 8 GB of memory are free" in text) == (memory < 8)
    assert ("less than 50 GB of disk are free" in text) == (disk < 50)
    assert ("Nothing is wrong." in text) == (memory == 8 and disk == 50)


def test_too_large_a_patch_is_reported_and_a_mistake_is_refused(tmp_path):
    arguments = phantom_arguments(tmp_path)
    done = kerasseg("doctor", *arguments, "pipeline.patch_size=[2048,2048,2048]")
    assert done.returncode == 0, done.stderr
    words = said(done.stdout)
    assert words["Memory"].startswith("pipeline.patch_size [2048, 2048, 2048] with")
    assert "if memory runs out, use pipeline.patch_size=[" in words["Memory"]
    assert words["Time"] == "not measured, because a step may not fit into memory"
    mistake = kerasseg("doctor", *arguments, "training.precision=mixed_float16")
    assert_one_sentence(mistake, ["mixed_float16 needs a GPU"])
    assert mistake.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_network_and_memory(tmp_path, hear):
    experiment = phantom_experiment(tmp_path, "model.features=[8,16]", "training.batch_size=5")
    heard = hear(experiment)
    parameters = build_network(experiment).count_params()
    assert heard.Network == f"3-D unet, {parameters:,} parameters"
    assert heard.Update == "1 batch of 5 patches of 8 x 16 x 12 voxels"
    needed = memory.step_bytes(experiment, experiment.pipeline.patch_size, 4) / 1e9
    assert heard.Memory.startswith(f"a step needs about {needed:.1f} GB of the ")


def test_times_are_of_the_batches_and_updates_that_training_has(tmp_path, hear):
    """The median of 0.5, 2 and 1 seconds."""
    experiment = phantom_experiment(
        tmp_path,
        "training.epochs=300",
        "training.gradient_accumulation=3",
        "pipeline.patches_per_volume=5",
    )
    unknown = hear(experiment)
    assert unknown.Batch.startswith("1 s on random data (3 measured, 0.5 s to 2 s; the first, ")
    assert unknown.Batch.endswith("took 9 s)")
    assert f"not known before kerasseg convert (no store in {tmp_path / 'store'})" in unknown.Cases
    assert unknown.Time == "5.0 minutes for 100 updates"
    assert not (tmp_path / "store").exists()

    store = open_store(experiment)
    train = open_split(store, experiment.split).train
    batches = TrainingBatches(
        store,
        train,
        experiment.pipeline,
        target="subregions",
        batch_size=2,
        seed=0,
        steps_multiple=3,
    ).steps_per_epoch
    assert batches == 15, "three pairs of six cases, five patches of each"
    known = hear(experiment)
    assert known.Cases == f"6 train, 1 validate ({tmp_path / 'store'})"
    assert known.Time == "15 s for an epoch of 5 updates,"
    assert "\n           75.0 minutes for 300 epochs\n" in known.text

    given = hear(phantom_experiment(tmp_path / "other", "training.steps_per_epoch=7"))
    assert given.Cases.startswith("not known") and given.Time == "7 s for an epoch of 7 updates,"


def test_a_split_that_is_there_is_used_and_none_is_made(tmp_path, hear):
    experiment = phantom_experiment(tmp_path, "split.test=0.25")
    store = open_store(experiment)
    hear(experiment)
    assert not (store.root / "splits").exists()
    open_split(store, experiment.split)
    (path,) = (store.root / "splits").iterdir()
    parts = json.loads(path.read_text())
    parts["train"], parts["test"] = [*parts["train"], parts["test"][0]], parts["test"][1:]
    path.write_text(json.dumps(parts))
    assert hear(experiment).Cases.startswith("6 train, 1 validate")
    parts["train"] += ["nobody"]
    path.write_text(json.dumps(parts))
    heard = hear(experiment)
    assert "the record store cannot be used" in heard.Cases and str(path) in heard.Cases
    assert "100 updates" in heard.Time


def test_a_store_of_other_settings_is_reported(tmp_path, hear):
    open_store(phantom_experiment(tmp_path))
    other = phantom_experiment(tmp_path, "data.modalities=[t1]")
    heard = hear(other)
    assert "not known, because the record store cannot be used" in heard.Cases
    assert "data.modalities" in heard.Cases and "100 updates" in heard.Time


@pytest.mark.parametrize(
    ("times", "measured", "words"),
    [
        ((50.0, 40.0, 40.0), 2, "40 s on random data (one measured; the first,"),
        ((50.0, 16.0, 16.0), 2, "16 s on random data (one measured; the first,"),
        ((50.0, 14.0, 14.0, 14.0), 3, "14 s on random data (2 measured, 14 s to 14 s; the first,"),
        ((0.1, 0.012, 0.012, 0.01), 4, "0.012 s on random data (3 measured, 0.01 s to 0.012 s;"),
    ],
)
def test_long_batches_are_not_all_measured(tmp_path, hear, times, measured, words):
    heard = hear(phantom_experiment(tmp_path), times)
    assert len(heard.taken) == measured
    assert heard.Batch.startswith(words)


def test_memory_that_runs_out_while_measuring_is_reported(tmp_path, monkeypatch, capsys):
    def time_batches(experiment, devices):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM of a tensor\nmore")
        yield

    monkeypatch.setattr(module, "time_batches", time_batches)
    experiment = phantom_experiment(tmp_path)
    forecast(experiment, share_of_this_machine(experiment))
    words = said(capsys.readouterr().out)
    assert words["Time"] == "not measured, because memory ran out (OOM of a tensor)"


def test_of_several_machines_the_share_of_one_is_measured(tmp_path, monkeypatch, capsys):
    """Without waiting for the other, and an epoch has as many batches as it will have."""
    monkeypatch.setenv("TF_CONFIG", json.dumps(TWO_MACHINES))
    sizes = []

    def time_batches(experiment, devices):
        sizes.append(experiment.training.batch_size)
        yield from (1.0, 1.0, 1.0, 1.0)

    monkeypatch.setattr(module, "time_batches", time_batches)
    experiment = phantom_experiment(tmp_path, "training.batch_size=6")
    open_store(experiment)
    share = share_of_this_machine(experiment)
    forecast(experiment, share)
    text = capsys.readouterr().out
    words = said(text)
    assert sizes == [3]
    assert words["TF_CONFIG"].startswith("2 machines: what follows is of this one's batches of 3")
    assert words["Update"].startswith("1 batch of 6 patches")
    assert "for an epoch of 2 updates" in words["Time"], "one of six cases, two patches of each"
    assert share.devices.workers == 1 and "TF_CONFIG" not in os.environ


def test_a_batch_that_the_machines_cannot_share(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps(TWO_MACHINES))
    experiment = phantom_experiment(tmp_path, "training.batch_size=3")
    with pytest.raises(UserError, match=r"batch_size 3 .* by the 2 of TF_CONFIG: use a multiple"):
        share_of_this_machine(experiment)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0123, "0.012 s"),
        (1, "1 s"),
        (9.94, "9.9 s"),
        (89, "89 s"),
        (90, "1.5 minutes"),
        (5399, "90.0 minutes"),
        (5400, "1.5 hours"),
        (172799, "48.0 hours"),
        (172800, "2.0 days"),
    ],
)
def test_durations(seconds, words):
    assert module._duration(seconds) == words
