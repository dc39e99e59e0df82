"""The built wheel works alone: installed in an environment of its own, used in another folder."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import kerasseg
from kerasseg.config.load import ready_configs

ROOT = Path(__file__).parents[1]
PHANTOMS = (
    "data.phantom={cases: 4, shape: [16, 24, 20]}",
    "split={validation: 0.25, test: 0.25}",
    "records={root: store, workers: 1}",
    "training={epochs: 1, batch_size: 1, gradient_accumulation: 1}",
)
SMALL_3D = ("pipeline={patch_size: [8, 16, 12], patches_per_volume: 1}", "model.features=[4, 6]")
BLOCKS = ("model.encoder_blocks=1", "model.decoder_blocks=1")
SMALL_2D = ("pipeline.patch_size=[16, 16]", "pipeline.patches_per_volume=1")


def run(*command: str | Path, cwd: Path, code: int = 0) -> str:
    """Run a program that sees the wheel and not the repository; return what it wrote."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**environment, "CUDA_VISIBLE_DEVICES": "-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel that is built from the source distribution of the files that git tracks."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = run("git", "ls-files", "kerasseg", "configs", cwd=ROOT).splitlines()
    for name in (*listed, "pyproject.toml", "README.md", "LICENSE"):
        copy = folder / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            copy.symlink_to((ROOT / name).readlink())
        else:
            copy.write_bytes((ROOT / name).read_bytes())
    build = "from setuptools import build_meta as backend; backend.build_sdist('..')"
    run(sys.executable, "-c", build, cwd=folder / "source")
    offline = ("--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    (source,) = folder.glob("*.tar.gz")
    run(sys.executable, "-m", "pip", "wheel", *offline, source, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def command(wheel, tmp_path_factory):
    """The command `kerasseg` of a fresh environment, which borrows this one's other packages."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    where = run(python, "-c", "import kerasseg; print(kerasseg.__file__)", cwd=folder)
    assert Path(where.strip()).is_relative_to(packages), "this is the wheel, not the repository"
    return folder / "bin" / "kerasseg"


def test_the_wheel_holds_what_is_no_python(wheel):
    with zipfile.ZipFile(wheel) as files:
        held = set(files.namelist())
    wanted = [
        "py.typed",
        *(f"configs/{name}.yaml" for name in ready_configs()),
        *("templates/report.html", "templates/weights.yaml", "cli/examples.json"),
        "serving/templates/kubernetes.yaml",
        *("app/static/index.html", "app/static/niivue.umd.js", "app/static/VENDORED.txt"),
    ]
    assert {f"kerasseg/{name}" for name in wanted} <= held
    others = [
        n for n in held if not n.startswith(("kerasseg/", f"kerasseg-{kerasseg.__version__}"))
    ]
    assert not others, "configs/ and tests/ of the repository are no packages"


def test_it_says_its_version_and_lists_its_configs(command, tmp_path):
    assert run(command, "--version", cwd=tmp_path) == f"kerasseg {kerasseg.__version__}\n"
    listed = run(command, "configs", cwd=tmp_path)
    assert all(f"\n{name}\n" in f"\n{listed}" for name in ready_configs())


def test_a_ready_config_is_found_by_its_name(command, tmp_path):
    said = run(command, "convert", "--config", "brats20_3d", cwd=tmp_path, code=2)
    assert said.startswith("error: ") and "data.root" in said and "does not exist" in said
    assert not list(tmp_path.iterdir()), "nothing is left behind"


def test_it_trains_without_a_config(command, tmp_path):
    run(command, "train", *PHANTOMS, *SMALL_3D, *BLOCKS, cwd=tmp_path)
    assert (tmp_path / "runs" / "phantom_3d" / "report.html").exists()


@pytest.mark.all_only  # the search's own config is in the wheel, and tests/tuning runs searches
def test_it_tunes_without_a_config(command, tmp_path):
    search = ("search.max_trials=1", "search.baseline=false")
    run(command, "tune", *PHANTOMS, *SMALL_2D, *search, cwd=tmp_path)
    assert list(tmp_path.glob("**/tune_phantom/best.yaml"))
