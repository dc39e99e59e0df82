import json
import re
import time
from types import SimpleNamespace

import pytest
import tensorflow as tf

from kerasseg import tensorflow_setup
from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.private_hooks import weights_without_values
from kerasseg.records.splits import Split
from kerasseg.run_experiment import build_network, run_experiment
from kerasseg.training import checks as memory
from kerasseg.training.devices import Devices
from kerasseg.training.fit import fit
from kerasseg.training.multi_worker import read_cluster
from tests.conftest import phantom_experiment

GIB = 2**30


def available(monkeypatch, gib):
    free = SimpleNamespace(available=gib * GIB)
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: free)


def warning(*overrides, devices=None):
    return memory.memory_warning(load_experiment(None, overrides), "float32", devices)


def test_a_patch_that_fits_passes_and_the_suggested_one_fits(monkeypatch):
    available(monkeypatch, 24)
    assert warning("pipeline.patch_size=[32,64,64]") is None
    available(monkeypatch, 4)
    message = warning()
    assert "[64, 160, 160]" in message and "4.3 GB are available" in message
    (override,) = re.findall(r"pipeline\.patch_size=\[[\d,]+\]", message)
    assert warning(override) is None


def test_the_estimate_grows_with_patch_batch_and_features():
    base = load_experiment(None)
    size = memory.step_bytes(base, (64, 64, 64), 4)
    assert memory.step_bytes(base, (128, 64, 64), 4) > 1.5 * size
    assert memory.step_bytes(base, (64, 64, 64), 2) < size
    wide = load_experiment(None, ["model.features=[64,128,256,512]"])
    assert memory.step_bytes(wide, (64, 64, 64), 4) > 1.9 * size
    more = load_experiment(None, ["training.batch_size=4"])
    assert memory.step_bytes(more, (64, 64, 64), 4) > 1.4 * size


FLAT = ("model.dimensions=2", "pipeline.patch_size=[256,256]")
RESENC_M = (
    "model.features=[32,64,128,256,320]",
    "model.bottleneck=320",
    "model.encoder_blocks=[1,3,4,6,6,6]",
    "model.decoder_blocks=1",
    "model.residual=encoder",
    "model.downsampling=strided",
    "model.deep_supervision=4",
    "pipeline.patch_size=[160,192,160]",
)


def nothing(experiment):
    """Bytes of no voxels at all: the weights'."""
    zero = (0,) * experiment.model.dimensions
    return memory.step_bytes(experiment, zero, 4) - memory._WORKSPACE_BYTES


@pytest.mark.parametrize("overrides", [FLAT, (), ("model.residual=both", "model.kernel=1")])
def test_all_weights_are_counted(overrides):
    experiment = load_experiment(None, list(overrides))
    with weights_without_values():  # only their number matters
        parameters = build_network(experiment).count_params()
    assert nothing(experiment) == 24 * parameters
    assert memory.count_parameters(experiment) == parameters


@pytest.fixture(scope="module")
def small_parameters():
    return build_network(load_experiment(None, ["model.features=[4,8]"])).count_params()


@pytest.mark.parametrize(
    ("name", "copies"), [("adam", 5), ("sgd", 4), ("lion", 4), ("keras.optimizers.Muon", 5)]
)
@pytest.mark.parametrize(("ema", "averages"), [("null", 0), ("0.99", 1)])
@pytest.mark.parametrize(("accumulation", "sums"), [(1, 0), (2, 1), (8, 1)])
def test_every_copy_of_the_weights_is_counted(
    small_parameters, name, copies, ema, averages, accumulation, sums
):
    """Weights, gradients, the update's; the optimiser's; averages; the sum of gradients so far."""
    experiment = load_experiment(
        None,
        [
            f"optimizer={{name: {name}, ema: {ema}}}",
            f"training.gradient_accumulation={accumulation}",
            "model.features=[4,8]",
        ],
    )
    assert nothing(experiment) == 4 * (copies + averages + sums) * small_parameters


def test_a_slice_takes_what_goes_in_and_out_of_layers():
    """Two times three outputs on both sides, upsampled, concatenated; pooled, padded and output."""
    experiment = load_experiment(None, [*FLAT, "training.batch_size=1"])
    widths = ((32, 1), (64, 4), (128, 16), (256, 64))
    levels = sum(256 * 256 // shrunk * channels * 15 for channels, shrunk in widths)
    pooled = sum(256 * 256 // shrunk // 4 * channels for channels, shrunk in widths)
    ends = 256 * 256 * (4 + 4 + 4 * 3)  # image and padded image; head, cropped, logits, output
    values = levels + pooled + ends + 256 * 512 * 6
    found = memory.step_bytes(experiment, (256, 256), 4) - memory.step_bytes(experiment, (0, 0), 4)
    assert found == pytest.approx(values * memory._LIVE_SHARE * 4)


def test_a_patch_counts_as_it_is_padded():
    experiment = load_experiment(None, list(FLAT))
    whole = memory.step_bytes(experiment, (256, 192), 4)
    assert memory.step_bytes(experiment, (241, 177), 4) == whole
    assert memory.step_bytes(experiment, (240, 192), 4) < whole


def test_neighbouring_slices_count_as_input_channels():
    size = memory.step_bytes(load_experiment(None, FLAT), (256, 256), 4)
    wide = load_experiment(None, [*FLAT, "pipeline.slices.neighbours=8"])
    weights, image = 24 * 9 * 4 * 16 * 32, 2 * 256 * 256 * 4 * 16 * 2
    expected = weights + image * memory._LIVE_SHARE * 4
    assert memory.step_bytes(wide, (256, 256), 4) - size == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(
    ("override", "least", "most"),
    [
        ("model.encoder_blocks=4", 1.2, 1.5),
        ("model.residual=both", 2.0, 2.5),
        ("model.norm=none", 0.6, 0.8),
        ("model.attention_gates=true", 1.02, 1.1),
        ("model.upsampling=interpolate", 1.05, 1.3),
        ("model.deep_supervision=3", 1.0, 1.01),
    ],
)
def test_every_part_of_the_network_counts(override, least, most):
    def activations(*overrides):
        experiment = load_experiment(None, [*FLAT, *overrides])
        whole, none = (memory.step_bytes(experiment, (n, n), 4) for n in (256, 0))
        return whole - none

    assert least < activations(override) / activations() < most


def test_a_pretrained_network_is_counted_without_its_weights(monkeypatch):
    """Nothing is read or downloaded for it."""
    network = "model.network=pretrained_unet"
    encoder = "model.pretrained={encoder: mobilenetv2, weights: missing.h5}"
    experiment = load_experiment(None, [*FLAT, network, encoder, "training.batch_size=8"])
    small = memory.step_bytes(experiment, (64, 64), 4)
    assert memory.step_bytes(experiment, (256, 256), 4) > small > nothing(experiment)
    available(monkeypatch, 1)
    message = memory.memory_warning(experiment, "float32")
    assert "model.pretrained.decoder_features [16, 32, 64" in message


def test_a_large_network_is_searched_quickly(monkeypatch):
    available(monkeypatch, 16)
    started = time.process_time()
    message = warning(*RESENC_M)
    assert time.process_time() - started < 5
    (override,) = re.findall(r"pipeline\.patch_size=\[[\d,]+\]", message)
    assert warning(*RESENC_M, override) is None


def test_the_suggested_slice_fits(monkeypatch):
    available(monkeypatch, 2)
    message = warning("model.dimensions=2", "pipeline.patch_size=[1024,512]")
    assert "pipeline.patch_size [1024, 512]" in message
    (override,) = re.findall(r"pipeline\.patch_size=\[[\d,]+\]", message)
    assert warning("model.dimensions=2", override) is None


def test_the_suggested_batch_fits(monkeypatch):
    available(monkeypatch, 6)
    message = warning("training.batch_size=6")
    assert "and more training.gradient_accumulation" in message
    (override,) = re.findall(r"training\.batch_size=\d+", message)
    batch = int(override.partition("=")[2])
    assert warning(override) is None
    assert warning(f"training.batch_size={batch + 1}")


def test_nothing_fits(monkeypatch):
    available(monkeypatch, 0.1)
    assert "use a smaller training.batch_size, or fewer model.features." in warning()
    alone = warning("training.batch_size=1")
    assert alone.endswith("this machine: if memory runs out, use fewer model.features.")


def test_an_estimate_warns_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    """The warning comes first, before anything is converted."""
    available(monkeypatch, 0.1)
    experiment = phantom_experiment(tmp_path)

    def converted(experiment):
        assert "Warning    pipeline.patch_size [8, 16, 12] with" in capsys.readouterr().out
        raise UserError("far enough")

    monkeypatch.setattr("kerasseg.run_experiment.open_store", converted)
    with pytest.raises(UserError, match="far enough"):
        run_experiment(experiment)


BUS_IDS = {0: "0000:81:00.0", 1: "0000:01:00.0", 2: "0000:41:00.0", 3: "0000:c1:00.0"}
"""By CUDA's number: CUDA counts the fastest GPU first, nvidia-smi counts along the bus."""


def gpus(monkeypatch, numbers, free):
    """GPUs that TensorFlow sees, by CUDA's numbers, and what each bus id has free in MiB."""
    visible = [SimpleNamespace(name=f"/physical_device:GPU:{n}") for n in numbers]
    monkeypatch.setattr(memory.tf.config, "get_visible_devices", lambda kind: visible)

    def device_get(device, number):
        device._obj.value = number + 100
        return 0

    def bus_id(text, length, device):
        text.value = BUS_IDS[device.value - 100].encode()
        return 0

    cuda = SimpleNamespace(
        cuInit=lambda flags: 0, cuDeviceGet=device_get, cuDeviceGetPCIBusId=bus_id
    )
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: cuda)

    def run(command, **options):
        (ids,) = [word.removeprefix("--id=") for word in command if word.startswith("--id=")]
        return SimpleNamespace(stdout="".join(f"{free[i]} MiB\n" for i in ids.split(",")))

    monkeypatch.setattr(tensorflow_setup.subprocess, "run", run)
    return cuda


def test_the_gpu_that_is_used_is_asked(monkeypatch):
    """By its bus id: nvidia-smi's numbers may be those of other GPUs."""
    experiment = load_experiment(None)
    free = {"0000:01:00.0": 1000, "0000:41:00.0": 2000, "0000:81:00.0": 3000, "0000:c1:00.0": 4000}
    for numbers, expected in (([0], 3000), ([1], 1000), ([0, 1], 1000), ([3, 2], 2000)):
        gpus(monkeypatch, numbers, free)
        found = memory.step_memory(experiment, "float32")
        assert found.available == expected * 2**20, numbers
        assert found.where == ("the GPU" if len(numbers) == 1 else "the fullest GPU")


def test_the_memory_of_the_machine_counts_where_cuda_does_not_answer(monkeypatch):
    available(monkeypatch, 3)
    cuda = gpus(monkeypatch, [0], {"0000:81:00.0": 1000})
    cuda.cuInit = lambda flags: 100
    found = memory.step_memory(load_experiment(None), "float32")
    assert (found.available, found.where) == (3 * GIB, "this machine")


def test_each_gpu_has_its_part_of_the_batch(monkeypatch):
    gpus(monkeypatch, range(4), dict.fromkeys(BUS_IDS.values(), 20_000))
    experiment = load_experiment(None, ["training.batch_size=16"])
    strategy = SimpleNamespace(num_replicas_in_sync=4)
    four = Devices(strategy, "4 GPUs")
    alone = load_experiment(None, ["training.batch_size=4"])
    found = memory.step_memory(experiment, "float32", four)
    assert found.needed == memory.step_memory(alone, "float32").needed
    assert "training.batch_size 16 and" in memory.memory_warning(experiment, "float32")
    monkeypatch.setattr(memory, "_available_memory", lambda: (found.needed - 1, "the fullest GPU"))
    message = memory.memory_warning(experiment, "float32", four)
    assert "batch_size 16 (4 on each GPU)" in message
    assert "training.batch_size=12 (and more" in message, "3 on each"


def test_the_cpus_of_a_machine_share_its_memory():
    experiment = load_experiment(None, ["training.batch_size=4"])
    two = Devices(SimpleNamespace(num_replicas_in_sync=2), "2 CPUs")
    whole = memory.step_memory(experiment, "float32").needed
    assert memory.step_memory(experiment, "float32", two).needed == whole
    workers = {
        "cluster": {"worker": ["host0:1", "host1:1"]},
        "task": {"type": "worker", "index": 0},
    }
    cluster = read_cluster({"TF_CONFIG": json.dumps(workers)})
    machines = Devices(SimpleNamespace(num_replicas_in_sync=2), "2 machines", cluster)
    half = load_experiment(None, ["training.batch_size=2"])
    expected = memory.step_memory(half, "float32").needed
    assert memory.step_memory(experiment, "float32", machines).needed == expected


def exhausted(message):
    def run_epochs(*arguments, **options):
        raise tf.errors.ResourceExhaustedError(None, None, message)

    return run_epochs


@pytest.mark.parametrize("network", ["unet", "pretrained_unet"])
def test_memory_that_runs_out_in_training_names_what_to_lower(
    phantom_store, tmp_path, monkeypatch, network
):
    flat = ("model.dimensions=2", "training.batch_size=4", f"model.network={network}")
    options = {
        "unet": ("pipeline.patch_size=[28,20]", "model.features=[4,6]", "model.bottleneck=8"),
        "pretrained_unet": (
            "pipeline.patch_size=[96,40]",
            "model.features=[32,64,128,256]",
            "model.bottleneck=512",
            "model.pretrained={encoder: mobilenetv2, weights: none}",
        ),
    }[network]
    experiment = phantom_experiment(tmp_path, *flat, *options)
    cases = tuple(phantom_store.rows)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    message = "OOM when allocating tensor with shape[4,8,12,16]\n\t [[node of the graph]]"
    monkeypatch.setattr("kerasseg.training.fit.run_epochs", exhausted(message))
    with pytest.raises(UserError) as error:
        split = Split(cases[:3], cases[3:5], ())
        fit(experiment, build_network(experiment), phantom_store, split, tmp_path / "run")
    said = str(error.value)
    assert (
        "Memory ran out during training (OOM when allocating tensor with shape[4,8,12,16])" in said
    )
    assert len(said.splitlines()) == 1
    features = {"unet": "model.features", "pretrained_unet": "model.pretrained.decoder_features"}
    names = ("pipeline.patch_size", "training.batch_size", "training.gradient_accumulation")
    for name in (*names, features[network], "training.precision"):
        assert name in said, name
    patch, half = {"unet": ([28, 20], [12, 8]), "pretrained_unet": ([96, 40], [32, 32])}[network]
    for size in (patch, half):
        assert str(size) in said
        assert f"{memory.step_bytes(experiment, size, 4) / 1e9:.1f} GB" in said
    smaller = f"pipeline.patch_size={half}".replace(" ", "")
    load_experiment(None, [*flat, *options, smaller])  # it is one that works


def test_a_full_disk_is_no_lack_of_memory(phantom_store, tmp_path, monkeypatch):
    experiment = phantom_experiment(tmp_path)
    cases = tuple(phantom_store.rows)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    message = "events.out.v2; No space left on device"
    monkeypatch.setattr("kerasseg.training.fit.run_epochs", exhausted(message))
    with pytest.raises(UserError, match=r"the disk is full.*run.root=FOLDER"):
        split = Split(cases[:3], cases[3:5], ())
        fit(experiment, build_network(experiment), phantom_store, split, tmp_path / "run")
