"""Tiny scans of four different sizes, in every layout, so that swapped axes fail."""

import fcntl
import functools
import gc
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import h5py
import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

import kerasseg  # noqa: F401  (sets the flags before anything imports TensorFlow)
from kerasseg import anatomy, parallel
from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.datasets import phantom as phantom_module
from kerasseg.records.store import RecordStore, open_store
from tests.program import draw_no_figures, fork_context, keep_no_stacks, share_fork_server


def pytest_configure(config: pytest.Config) -> None:
    """Property tests depend on nothing else that the machine does, and take 100 examples only where
    every test runs. Workers share a fork server."""
    if getattr(config.option, "numprocesses", None) or hasattr(config, "workerinput"):
        share_fork_server(worker=hasattr(config, "workerinput"))
    examples = 40 if config.option.markexpr else 100
    slow = [HealthCheck.too_slow]
    settings.register_profile(
        "ours", deadline=None, suppress_health_check=slow, max_examples=examples
    )
    settings.load_profile("ours")


SHAPE = (18, 24, 22)
"""Depth, height, width of the tests' scans; with 4 channels all four sizes differ."""

SHARED = Path(__file__).parents[2] / "shared" / "data"

LPS = np.array([[-1, 0, 0, 10], [0, -1, 0, 20], [0, 0, 1, -30], [0, 0, 0, 1]], float)
"""BraTS's own header axes: x grows to the left, y to the back, z upwards."""

TINY = (
    "pipeline.patch_size=[8,16,12]",
    "model.features=[4]",
    "model.bottleneck=6",
    "pipeline.patches_per_volume=2",
    "training.epochs=2",
    "training.gradient_accumulation=1",
    "optimizer.learning_rate=0.01",
)


LONGEST = (
    "training/test_replicas.py",
    "app/test_browser.py",
    "tuning/test_kill.py",
    "training/test_workers_stopped.py",
    "test_cli.py",
    "test_train.py",
    "serving/export/test_saved_model.py",
    "training/test_workers.py",  # whose single process is that of test_workers_stopped
    "tuning/test_processes.py",
    "serving/export/test_export_onnx.py",
    "models/test_pretrained_unet.py",
    "pipeline/test_batches.py",
    "test_wheel.py",
    "training/test_kill.py",
    "serving/test_swap_and_kill.py",
    "losses/test_losses.py",
    "older/test_before_house.py",
    "training/test_training_model.py",
    "training/test_resume.py",
    "training/test_callbacks.py",
    "tuning/test_trial.py",
    "serving/test_limits.py",
    "evaluation/test_evaluate_runs.py",
    "config/test_configs.py",
)
"""Files that take most of a minute or more: begun last, one alone would be waited for."""


TOGETHER = {
    "the page": ("app/test_page.py", "app/test_prompts.py"),
    "the server": (
        "serving/test_limits.py",
        "serving/test_bad_input.py",
        "serving/test_kserve.py",
        "serving/test_protocols.py",
        "serving/test_segment.py",
    ),
}
"""Files that one worker runs, as each worker starts a server of its own for its tests."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Workers are forked off the fork server."""
    code = "import sys; from tests.program import fork_worker; sys.exit(fork_worker())"
    for spec in specs:
        spec.python = shlex.join([sys.executable, "-c", code])


def pytest_sessionfinish() -> None:
    """Spare pytest to look for garbage among millions of objects at the end."""
    gc.freeze()


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests go to the workers by files, some of them together."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    scopes = {f"tests/{name}": scope for scope, names in TOGETHER.items() for name in names}

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            name: str = super()._split_scope(nodeid)
            return scopes.get(name, name)

    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first."""
    here = Path(__file__).parent
    places = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(LONGEST)))


@pytest.fixture(scope="session")
def shared_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], object]], Path]:
    """A function `shared_once(name, build)` that returns a folder that only one worker builds.

    Session fixtures are built again by each worker of pytest-xdist. What takes seconds to build and
    is only read afterwards, such as a store, a run or an exported model, is built here instead::

        @pytest.fixture(scope="session")
        def tiny_run(shared_once) -> Path:
            return shared_once("tiny_run", lambda folder: train_something(folder)) / "runs" / "tiny"

    `name` is the folder's name, unique in the whole suite. `build` gets the empty folder, which
    already has its final path, so paths may be written into files. The first worker builds while
    the others wait at a file lock. If `build` fails, the folder is removed, the error is raised,
    and the next worker tries again. No test may change the folder: copy what is to be changed.
    `build` may call `shared_once` for another name that it needs.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the folder that all workers have in common

    def build_once(name: str, build: Callable[[Path], object]) -> Path:
        folder, done = root / f"once-{name}", root / f"once-{name}.done"
        with (root / f"once-{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                folder.mkdir()
                try:
                    build(folder)
                except BaseException:
                    shutil.rmtree(folder, ignore_errors=True)
                    raise
                done.touch()
        return folder

    return build_once


@pytest.fixture(scope="session")
def phantoms() -> list[tuple[np.ndarray, np.ndarray]]:
    """Image (D, H, W, 4) and label (D, H, W) of eight phantoms: six full, one without ET, one
    without a tumour."""
    return [phantom_module.make_phantom(SHAPE, seed=5, index=i) for i in range(8)]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Real scans beside the checkout; skips where they are missing."""
    if not SHARED.is_dir():
        pytest.skip(f"real scans are not here ({SHARED} is missing)")
    return SHARED


def to_file_axes(array: np.ndarray) -> np.ndarray:
    """(D, H, W) of the house -> (x, y, z) of an LPS file."""
    return array.transpose(2, 1, 0)


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray = LPS) -> None:
    """Write an array in file axes (x, y, z)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)


def write_brats(
    root: Path,
    case_id: str,
    phantom: tuple[np.ndarray, np.ndarray],
    *,
    pattern: str = "{case}_{kind}.nii.gz",
    names: dict[str, str] | None = None,
    enhancing: int = 4,
    affine: np.ndarray = LPS,
) -> Path:
    """Write one case folder as BraTS does; returns the folder."""
    image, label = phantom
    folder = root / case_id
    for channel, modality in enumerate(anatomy.MODALITIES):
        kind = (names or {}).get(modality, modality)
        values = np.rint(image[..., channel]).astype(np.int16)
        name = pattern.format(case=case_id, kind=kind)
        write_nifti(folder / name, to_file_axes(values), affine)
    ids = np.where(label == anatomy.ET, enhancing, label).astype(np.uint8)
    name = pattern.format(case=case_id, kind=(names or {}).get("seg", "seg"))
    write_nifti(folder / name, to_file_axes(ids), affine)
    return folder


def write_h5_volume(root: Path, number: int, phantom: tuple[np.ndarray, np.ndarray]) -> None:
    """Write one volume as Kaggle's slices: (x, y) arrays, z-scored per slice and channel."""
    image, label = phantom
    root.mkdir(parents=True, exist_ok=True)
    for index in range(image.shape[0]):
        pixels = np.rint(image[index]).astype(np.float64).transpose(1, 0, 2)
        deviation = pixels.std(axis=(0, 1))
        scored = (pixels - pixels.mean(axis=(0, 1))) / np.where(deviation > 0, deviation, 1)
        mask = np.stack([i == label[index].T for i in anatomy.SUBREGIONS.values()], axis=-1)
        with h5py.File(root / f"volume_{number}_slice_{index}.h5", "w") as file:
            file["image"] = scored
            file["mask"] = mask.astype(np.uint8)


@pytest.fixture
def brats_root(tmp_path: Path, phantoms: list[tuple[np.ndarray, np.ndarray]]) -> Path:
    """Two BraTS 2021 cases."""
    root = tmp_path / "brats"
    for index in range(2):
        write_brats(root, f"BraTS2021_{index:05d}", phantoms[index])
    return root


@pytest.fixture
def brats_experiment(brats_root: Path, tmp_path: Path) -> Callable[..., Experiment]:
    """An experiment over `brats_root`, with overrides."""

    def make(*overrides: str) -> Experiment:
        base = ("data.layout=brats_nifti", f"data.root={brats_root}", "records.workers=1")
        store = f"records.root={tmp_path / 'store'}"
        return load_experiment(None, [*TINY, *base, store, *overrides])

    return make


def phantom_experiment(folder: Path, *overrides: str) -> Experiment:
    """An experiment over eight tiny phantoms whose store and runs lie in `folder`."""
    shape = "[" + ",".join(map(str, SHAPE)) + "]"
    base = (
        f"data.phantom={{cases: 8, shape: {shape}, seed: 5}}",
        f"records.root={folder / 'store'}",
        f"run.root={folder / 'runs'}",
        "run.name=tiny",
        "records.workers=1",
    )
    return load_experiment(None, [*TINY, *base, *overrides])


@pytest.fixture(scope="session")
def phantom_store(shared_once) -> RecordStore:
    """A store of eight phantoms in shards of three. Not to be written to."""

    def build(folder: Path) -> None:
        open_store(phantom_experiment(folder, "records.cases_per_shard=3"))

    folder = shared_once("phantom_store", build)
    return open_store(phantom_experiment(folder, "records.cases_per_shard=3"))


@pytest.fixture(scope="session", autouse=True)
def _graphs_are_not_optimised() -> None:
    """TensorFlow traces no training steps and optimises no graphs, which takes longer than the few
    steps that tests make.

    Tests with `graphs_as_users_have_them` (a training of each kind: 3-D, 2-D; two replicas in
    mixed precision and the trials of searches do the same by themselves) have what users have.
    """
    import tensorflow as tf

    from tests import eager_steps

    if "tests.preloaded" not in sys.modules:  # which has done it for forked workers
        eager_steps.do_not_trace_steps()
        eager_steps.iterate_datasets_as_built()
        keep_no_stacks()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    # Graphs are millions of Python objects that live as long as the process: looking through them
    # again and again takes a tenth of the time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


@pytest.fixture
def graphs_as_users_have_them() -> Iterator[None]:
    """TensorFlow traces the steps of this test and optimises its graphs, as it does for users."""
    import tensorflow as tf

    from tests import eager_steps

    eager_steps.traced = True
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    yield
    eager_steps.traced = False
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})


@pytest.fixture(scope="session", autouse=True)
def _pools_need_no_imports() -> None:
    """Pools of processes, which are spawned, are forked off one that has imported what they need.

    Importing it takes each process seconds. `tests/test_parallel.py` spawns as users do.
    """

    def pool(workers: int) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(workers, fork_context(), initializer=parallel._start)

    parallel._pool = pool


@pytest.fixture(scope="session", autouse=True)
def _phantoms_are_made_once() -> None:
    """Stores of phantoms are made by many tests, most of them of the same few cases."""
    made = functools.lru_cache(maxsize=64)(phantom_module.make_phantom)

    def copy_of(*arguments: Any, **options: Any) -> tuple[np.ndarray, np.ndarray]:
        image, label = made(*arguments, **options)
        return image.copy(), label.copy()

    phantom_module.make_phantom = copy_of


@pytest.fixture(scope="module")
def networks_loaded_once() -> Iterator[None]:
    """For tests that read the same runs again and again: loading takes as long as predicting."""
    from kerasseg import run

    @functools.cache
    def once(path: Path, written: int) -> Any:
        return load(path)

    load = run.load_network
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load_network", lambda path: once(path, path.stat().st_mtime_ns))
        yield


@pytest.fixture
def albumentations_is_here() -> None:
    """Import it where its tests run only: collecting them would take each worker seconds."""
    pytest.importorskip("albumentations")


@pytest.fixture
def steps_not_traced() -> Iterator[None]:
    """For tests of one or two steps: tracing a step takes several times longer than making it."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def figures_not_rendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of pages and tables. Tests of figures turn them into pixels."""
    draw_no_figures(monkeypatch.setattr)


@pytest.fixture
def python() -> str:
    """The interpreter that runs the tests."""
    return sys.executable
