"""`kerasseg export --format` on the command line."""

import builtins

import pytest

from kerasseg.cli.serving import export
from kerasseg.errors import UserError
from kerasseg.serving.formats.runtimes import check_packages
from tests.test_cli import kerasseg


def test_the_command_says_how_far_it_is(runs, tmp_path):
    output = tmp_path / "tiny.onnx"
    done = kerasseg("export", str(runs["slices"]), "-o", str(output), "--format", "onnx")
    assert done.returncode == 0, done.stderr
    assert "largest difference of a probability" in done.stdout
    assert "0.001 is allowed" in done.stdout and "tiny.json" in done.stdout


@pytest.mark.parametrize(
    "options, words",
    [
        ({"format": "onnx", "largest_volume": 9}, "--largest-volume is of --format savedmodel"),
        ({"format": "litert", "gzip": False}, "--gzip is of --format savedmodel"),
        ({"format": "openvino", "combine": "vote"}, "--combine is of --format savedmodel"),
        ({"precision": "int8"}, "--precision is of --format onnx, openvino and litert"),
        ({"tolerance": 0.1}, "--tolerance is of --format onnx"),
        ({"format": "onnx", "tolerance": 0.1}, "--tolerance is of --precision float16"),
        (
            {"format": "onnx", "words": ["run", "evaluation.flips=[width]"]},
            r"evaluation.flips=\[width\] does not change",
        ),
    ],
)
def test_options_that_have_no_effect_are_refused(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        export(**{"words": ["run"], "output": tmp_path / "x", **options})


def test_a_missing_package_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name in ("tf2onnx", "openvino"):
            raise ImportError(f"No module named {name}", name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    for wanted in ("onnx", "openvino"):
        with pytest.raises(UserError, match=r"is missing.*pip install 'kerasseg\[formats\]'"):
            check_packages(wanted)
