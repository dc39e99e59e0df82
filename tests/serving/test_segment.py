"""`kerasseg segment`: the same files as a model in this process writes, in the scans' own grid."""

import dataclasses
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from benchmarks.serving_model import expected_label, expected_probabilities
from kerasseg.config.data import DataSettings
from kerasseg.datasets.inputs import find_inputs
from kerasseg.errors import UserError
from kerasseg.prediction.predict import show_outcome
from kerasseg.prediction.predict_files import OutputOptions, predict_files
from kerasseg.prediction.prediction import Prediction
from kerasseg.serving import Client
from kerasseg.serving.client import Metadata, segment_files
from tests.conftest import write_brats
from tests.test_cli import kerasseg

OBLIQUE = np.array([[0, 0, 1.1, 3], [-0.9, 0.1, 0, 40], [0.1, 2, 0, -9], [0, 0, 0, 1]])
"""Axes of which x grows to the front, y upwards, z to the right, all a little oblique."""
NAMES = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w", "seg": "seg"}


class InThisProcess:
    """A model that predicts what the served one does, in this process, by NumPy."""

    data = DataSettings.model_validate({"layout": "brats_nifti", "root": "gone"})
    target, members = "regions", 1

    def segment(self, case, *, uncertainty=False):
        own = expected_label(case.image)
        label = np.where(own == 4, 3, own).astype(np.uint8)
        return Prediction(case, "regions", label, expected_probabilities(case.image))


ORIGIN = {"networks": [], "combine": "mean", "settings": [], "labels": None, "postprocessing": []}


@pytest.fixture
def scans(phantoms, tmp_path) -> Path:
    """Three cases: one with BraTS's axes, one oblique, one with the names of 2023."""
    root = tmp_path / "scans"
    write_brats(root, "straight", phantoms[0])
    write_brats(root, "oblique", phantoms[1], affine=OBLIQUE)
    write_brats(root, "new", phantoms[2], pattern="{case}-{kind}.nii.gz", names=NAMES, enhancing=3)
    return root


@pytest.mark.parametrize("way", ["grpc", "rest", "gzip", "probabilities"])
def test_the_same_files_as_in_this_process(server, scans, tmp_path, way):
    wanted = OutputOptions(probabilities=way == "probabilities")
    inputs = find_inputs([scans], InThisProcess.data)
    assert predict_files(InThisProcess(), inputs, tmp_path / "here", ORIGIN, wanted).written
    rest = way == "rest"
    with Client(
        f"127.0.0.1:{server.rest if rest else server.grpc}",
        rest=rest,
        probabilities=wanted.probabilities,
        compression="gzip" if way == "gzip" else "auto",
    ) as client:
        outcome = segment_files(client, [scans], tmp_path / "there", wanted)
        assert client.sent.compression == ("gzip" if way == "gzip" else "")
    assert outcome.written == ["new", "oblique", "straight"] and not outcome.failed
    names = sorted(p.name for p in (tmp_path / "here").glob("*.nii.gz"))
    assert len(names) == (12 if wanted.probabilities else 3)
    for name in names:
        here, there = (nib.load(tmp_path / side / name) for side in ("here", "there"))
        a, b = np.asarray(here.dataobj), np.asarray(there.dataobj)
        assert a.dtype == b.dtype and np.allclose(a, b, rtol=0, atol=1e-6), name
        assert np.array_equal(here.affine, there.affine)
    for case, kind in (("straight", "straight_t1"), ("oblique", "oblique_t1"), ("new", "new-t1n")):
        scan = nib.load(scans / case / f"{kind}.nii.gz")
        label = nib.load(tmp_path / "there" / f"{case}.nii.gz")
        assert label.shape == scan.shape
        assert np.allclose(label.affine, scan.affine, atol=1e-5)
        assert np.max(label.dataobj) == (3 if case == "new" else 4)


def test_the_verb_writes_one_file_or_a_folder(server, scans, tmp_path):
    address = ("--server", f"127.0.0.1:{server.grpc}")
    one = tmp_path / "label.nii"
    done = kerasseg("segment", *address, str(scans / "oblique"), "--output", str(one))
    assert done.returncode == 0, done.stderr
    assert "(last: int16, not compressed)" in done.stdout
    image = np.stack(
        [nib.load(scans / "oblique" / f"oblique_{m}.nii.gz").get_fdata() for m in ("flair", "t1")],
        axis=-1,
    )
    assert np.array_equal(nib.load(one).get_fdata(), expected_label(image))
    folder = tmp_path / "labels"
    (scans / "new" / "new-t2w.nii.gz").write_bytes(b"no scan")
    done = kerasseg("segment", *address, str(scans), "-o", str(folder))
    assert done.returncode == 1 and "2 case(s) written" in done.stdout
    assert sorted(p.name for p in folder.iterdir()) == [
        "oblique.nii.gz",
        "predictions.json",
        "straight.nii.gz",
    ]


def test_mistakes_have_a_sentence(server, scans, tmp_path):
    (scans / "new" / "new-t2w.nii.gz").unlink()
    out = tmp_path / "out.nii.gz"
    with Client(f"127.0.0.1:{server.grpc}") as client:
        with pytest.raises(UserError, match=r"new has t.*, but .* needs flair, t1, t1ce, t2"):
            segment_files(client, [scans / "new"], out)
        with pytest.raises(UserError, match=r"one file, but there are 3 cases"):
            segment_files(client, [scans], out)
        with pytest.raises(UserError, match="does not exist"):
            segment_files(client, [scans / "gone"], out)
        with pytest.raises(UserError, match=r"expected a file that ends with \.nii\.gz"):
            segment_files(client, [scans / "oblique"], tmp_path / "out.png")
        with pytest.raises(UserError, match="single slice"):
            client.predict(np.random.default_rng(0).normal(size=(1, 8, 9, 4)))
        with pytest.raises(UserError, match="flair has 216 NaN"):
            client.predict(np.full((3, 8, 9, 4), np.nan))
    with (
        Client(f"127.0.0.1:{server.grpc}", "other") as client,
        pytest.raises(UserError, match="There is no model 'other'; there is kerasseg"),
    ):
        client.predict(np.zeros((3, 4, 5, 4)))
    for address in ("here", "host:port", "host:0", "http://host:80"):
        with pytest.raises(UserError, match="no HOST:PORT"):
            Client(address)
    assert Client("[::1]:8500").connection.address == "[::1]:8500"
    swapped = {False: server.rest, True: server.grpc}
    for rest, port in swapped.items():
        with (
            Client(f"127.0.0.1:{port}", rest=rest) as client,
            pytest.raises(UserError, match="is it the port of"),
        ):
            client.metadata  # noqa: B018
    for options, sentence in (
        (("--key", "k"), "belong together"),
        (("--authority", "a"), "add it"),
        (("--tls", "--authority", str(tmp_path / "no.pem")), "cannot be read"),
    ):
        done = kerasseg("segment", "--server", "h:1", str(scans), "-o", str(out), *options)
        assert done.returncode == 2 and sentence in done.stderr and "Traceback" not in done.stderr


def test_other_ids_than_the_metadata_names(server, volume):
    with Client(f"127.0.0.1:{server.grpc}") as client:
        told = client.metadata
        client.metadata = dataclasses.replace(told, labels={"background": 0, "NCR": 1})
        with pytest.raises(UserError, match=r"labels hold \[0, 1, 4\], but its metadata names"):
            client.predict(volume)


def test_what_the_server_says_of_a_scan_is_printed(phantoms, scans, tmp_path, capsys):
    said = b"The scan has voxels of 6x1x1 mm (depth x height x width)."
    client = Client("127.0.0.1:9")
    client.metadata = Metadata(("t1", "flair"), 3, {"background": 0, "tumour": 1}, "binary")
    answer = {"labels_bytes": bytes(phantoms[0][1].size), "warnings": said}
    client.call = lambda signature, inputs: answer
    outcome = segment_files(client, [scans], tmp_path / "out")
    note = said.decode().removesuffix(".")
    assert outcome.notes == {name: [note] for name in ("new", "oblique", "straight")}
    show_outcome(outcome, tmp_path / "out", Console())
    shown = capsys.readouterr().out
    assert f"Warning: new and 2 more case(s): {note}.\n" in shown
