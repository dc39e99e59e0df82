"""Files of strangers: what is taken, and what is refused with a sentence that has no path in it."""

import gzip
import io
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import h5py
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from kerasseg import anatomy
from kerasseg.app import uploads, views
from kerasseg.app.jobs import Job, start_job
from kerasseg.app.runs import Choices
from kerasseg.app.sessions import Sessions
from kerasseg.config.load import load_experiment
from kerasseg.datasets.nifti import read_nifti
from kerasseg.errors import UserError
from kerasseg.prediction.prediction import array_case
from kerasseg.serving.server.limits import MIB, Limits, Refusal
from kerasseg.serving.server.models import WorkQueue
from tests.conftest import SHAPE, write_brats, write_h5_volume, write_nifti

LIMITS = Limits(request_bytes=4 * MIB, volume_bytes=8 * MIB)
GLIOMA = load_experiment(None, ["data.layout=brats_nifti", "data.root=gone"]).data


@pytest.fixture
def session(tmp_path):
    (tmp_path / "sessions").mkdir()
    return Sessions(tmp_path / "sessions").new()


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def small_nifti(shape=(4, 5, 6)):
    return nib.Nifti1Image(np.ones(shape, np.int16), np.eye(4)).to_bytes()


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("BraTS2021_00006_t1ce.nii.gz", "t1ce"),
        ("BraTS-GLI-00001-000-t2f.nii.gz", "flair"),
        ("sub-01_T1w.nii", "t1"),
        ("T2_FLAIR_brain.nii.gz", "flair"),
        ("case_seg.nii.gz", "truth"),
        ("brain_mask.nii.gz", "truth"),
        ("something.nii", ""),
    ],
)
def test_modality_is_guessed_from_the_name(name, role):
    assert uploads.guess_role(name) == role


STRANGE = (
    "../../etc/passwd.nii",
    "a\\b\\c.nii",
    "<script>.nii",
    "x" * 400 + ".nii",
    ".nii",
    "ü.nii",
)


@pytest.mark.parametrize("name", STRANGE)
def test_file_is_written_under_a_harmless_name_inside_the_tray(session, name):
    uploads.receive(session, name, "t1", small_nifti(), LIMITS)
    ((safe, file),) = session.tray.items()
    assert file.path.parent == session.tray_folder and file.path.is_file()
    assert set(safe) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert len(safe) <= 125


def _link():
    info = zipfile.ZipInfo("case_t1.nii")
    info.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    return buffer.getvalue()


def _liar():
    """A zip that claims 10 bytes for what is 1 MiB."""
    data = bytearray(zipped({"case_t1.nii": bytes(MIB)}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + offset
        data[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(data)


def _torn():
    """A zip whose deflated bytes are damaged in the middle."""
    values = np.random.default_rng(0).integers(0, 9, 200_000).astype(np.uint8)
    data = bytearray(zipped({"case_t1.nii": values.tobytes()}))
    data[60:90] = b"\xff" * 30
    return bytes(data)


HOSTILE_ZIPS = {
    "slip": (lambda: zipped({"../case_t1.nii": b"x"}), "outside of it"),
    "absolute": (lambda: zipped({"/tmp/case_t1.nii": b"x"}), "outside of it"),
    "link": (_link, "link"),
    "nested": (lambda: zipped({"a.zip": b"x", "case_t1.nii": b"x"}), "another archive"),
    "bomb": (lambda: zipped({"case_t1.nii": bytes(9 * MIB)}), "at most 8 MiB"),
    "liar": (_liar, "damaged"),
    "cut": (lambda: zipped({"case_t1.nii": small_nifti()})[:-30], "damaged"),
    "torn": (_torn, "case_t1.nii in the zip is damaged"),
    "nothing": (lambda: zipped({"readme.txt": b"x"}), "no file that is read here"),
    "many": (lambda: zipped({f"{n}.txt": b"" for n in range(2001)}), "more than 2000"),
}


@pytest.mark.parametrize("kind", HOSTILE_ZIPS)
def test_hostile_zip_is_refused(session, kind):
    build, sentence = HOSTILE_ZIPS[kind]
    with pytest.raises(Refusal, match=sentence) as refused:
        uploads.receive(session, "scan.zip", "", build(), LIMITS)
    assert str(session.folder) not in refused.value.sentence
    assert not session.tray


def _h5(tmp_path, kind):
    path = tmp_path / "volume_1_slice_0.h5"
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["image"] = h5py.ExternalLink("/etc/other.h5", "image")
        elif kind == "external data":
            external = [("/etc/passwd", 0, 64)]
            file.create_dataset("image", (4, 4, 4), "u1", external=external)
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4, 4, 4), "u1")
            layout[:] = h5py.VirtualSource("/etc/other.h5", "image", (4, 4, 4))
            file.create_virtual_dataset("image", layout)
        else:
            file.create_dataset("image", (2**16, 2**16, 4), "u1", chunks=(64, 64, 4))
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["external link", "external data", "virtual", "huge"])
def test_hdf5_file_that_leads_elsewhere_or_is_huge_is_refused(session, tmp_path, kind):
    with pytest.raises(Refusal, match=r"link|other files|too large"):
        uploads.receive(session, "volume_1_slice_0.h5", "", _h5(tmp_path, kind), LIMITS)
    assert not session.tray and not list(session.tray_folder.iterdir())


def test_gzip_bomb_huge_header_and_huge_picture_are_refused(session):
    with pytest.raises(Refusal, match="inflates to more"):
        bomb = gzip.compress(bytes(9 * MIB))
        uploads.receive(session, "a_t1.nii.gz", "t1", bomb, LIMITS)
    with pytest.raises(Refusal, match="gzip inside of gzip"):
        twice = gzip.compress(gzip.compress(small_nifti()))
        uploads.receive(session, "a_t1.nii.gz", "t1", twice, LIMITS)
    header = nib.Nifti1Header()
    header.set_data_shape((3000, 3000, 3000))
    with pytest.raises(Refusal, match="at most 8 MiB"):
        uploads.receive(session, "a_t1.nii", "t1", header.binaryblock + bytes(4), LIMITS)
    picture = io.BytesIO()
    Image.new("1", (9_000, 9_000)).save(picture, "PNG")
    with pytest.raises(Refusal, match="pixels"):
        uploads.receive(session, "a.png", "", picture.getvalue(), LIMITS)
    with pytest.raises(Refusal, match="no kind that is read"):
        uploads.receive(session, "a.exe", "", b"MZ", LIMITS)
    assert not session.tray


def test_damaged_file_can_be_sent_again(session):
    for _ in range(2):
        with pytest.raises(UserError, match="no NIfTI header"):
            uploads.receive(session, "a_t1.nii", "t1", b"nonsense" * 100, LIMITS)
    assert not session.tray and not list(session.tray_folder.iterdir())


@pytest.mark.parametrize("kind", ["nii", "png", "h5"])
def test_values_of_all_files_count_and_not_their_bytes(session, kind):
    buffer, values = io.BytesIO(), 10**6
    if kind == "nii":
        buffer.write(nib.Nifti1Image(np.zeros((100, 100, 100), np.uint8), np.eye(4)).to_bytes())
    elif kind == "png":
        Image.new("RGBA", (500, 500)).save(buffer, "PNG")
    else:
        values = 90 * 90 * 4
        with h5py.File(buffer, "w") as file:
            file.create_dataset("image", (90, 90, 4), "f4", compression="gzip")
    fit = LIMITS.volume_bytes // (4 * values)
    for number in range(fit):
        uploads.receive(session, f"slice_{number}.{kind}", "", buffer.getvalue(), LIMITS)
    with pytest.raises(Refusal, match=rf"The scan with more\.{kind} has \d+ MiB; at most 8 MiB"):
        uploads.receive(session, f"more.{kind}", "", buffer.getvalue(), LIMITS)
    assert len(session.tray) == len(list(session.tray_folder.iterdir())) == fit


def test_zip_of_a_case_with_its_truth_becomes_a_scan(session, tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    files = {f"case/{path.name}": path.read_bytes() for path in folder.iterdir()}
    uploads.receive(session, "scan.zip", "", zipped(files | {"__MACOSX/._x.nii": b""}), LIMITS)
    scan = uploads.make_scan(session, GLIOMA, {})
    assert scan.case.case_id == "case" and scan.case.modalities == GLIOMA.modalities
    assert np.array_equal(scan.case.label, phantoms[0][1])
    assert not session.tray and not session.tray_folder.exists()
    assert isinstance(scan.case.image, np.memmap)


def test_roles_that_the_visitor_chose_count(session, tmp_path, phantoms):
    folder = write_brats(tmp_path, "case", phantoms[0])
    for path in folder.glob("*_t?.nii.gz"):
        uploads.receive(session, path.name, "", path.read_bytes(), LIMITS)
    with pytest.raises(Refusal, match="say which modality"):
        uploads.make_scan(session, GLIOMA, {})
    with pytest.raises(Refusal, match="both flair"):
        uploads.make_scan(session, GLIOMA, {"case_t1.nii": "flair", "case_t2.nii": "flair"})
    scan = uploads.make_scan(session, GLIOMA, {"case_t1.nii": "t2", "case_t2.nii": "t1"})
    assert scan.case.modalities == ("t1", "t2")
    assert np.array_equal(scan.case.image[..., 0], np.rint(phantoms[0][0][..., 3]))


def test_h5_volume_and_stacked_file(session, tmp_path, phantoms):
    data = GLIOMA.model_copy(update={"h5_slices": SHAPE[0]})
    write_h5_volume(tmp_path, 3, phantoms[0])
    for path in tmp_path.glob("*.h5"):
        uploads.receive(session, path.name, "", path.read_bytes(), LIMITS)
    scan = uploads.make_scan(session, data, {})
    assert scan.case.case_id == "volume_3" and np.array_equal(scan.case.label, phantoms[0][1])
    stacked = tmp_path / "stacked.nii"
    write_nifti(stacked, phantoms[0][0].transpose(2, 1, 0, 3).astype(np.float32))
    uploads.receive(session, "stacked.nii", "all", stacked.read_bytes(), LIMITS)
    assert uploads.make_scan(session, GLIOMA, {}).case.image.shape == (*SHAPE, 4)


def test_lgg_patient_with_masks(session, tmp_path):
    data = load_experiment(None, ["data.layout=lgg", "data.root=gone", "model.target=binary"]).data
    rng = np.random.default_rng(0)
    for number in range(1, 4):
        pixels = rng.integers(1, 200, (16, 20, 3)).astype(np.uint8)
        mask = ((pixels[..., 0] > 150) * 255).astype(np.uint8)
        for name, values in ((f"TCGA_X_{number}", pixels), (f"TCGA_X_{number}_mask", mask)):
            buffer = io.BytesIO()
            Image.fromarray(values).save(buffer, "TIFF")
            uploads.receive(session, f"{name}.tif", "", buffer.getvalue(), LIMITS)
    scan = uploads.make_scan(session, data, {})
    assert scan.case.image.shape == (3, 16, 20, 3) and scan.case.label.any()
    assert scan.case.modalities == data.modalities


def test_sessions_end_with_their_files(tmp_path, phantoms):
    sessions = Sessions(tmp_path)
    session = sessions.new()
    uploads.receive(session, "a_t1.nii", "t1", small_nifti(), LIMITS)
    assert sessions.find(session.key) is session and sessions.find("guessed") is None
    sessions.expire(idle=3600)
    assert session.folder.exists()
    sessions.expire(idle=-1)
    assert sessions.find(session.key) is None and not session.folder.exists()


def small_case(phantoms):
    return array_case(phantoms[0][0][..., :1], (1.0, 1.0, 1.0), ("flair",))


def test_refusal_removes_and_leaves_nothing(session, phantoms):
    scans = [session.add_scan(small_case(phantoms)) for _ in range(4)]
    for key in "abcdefgh":
        folder = session.folder / key
        session.jobs[key] = SimpleNamespace(key=key, scan=scans[0], folder=folder, unfinished=False)
    runs = SimpleNamespace(check=lambda *_: None, run=lambda _: None)
    full = WorkQueue("page", 0)
    with pytest.raises(Refusal, match="wait already"):
        start_job(session, scans[0], 0, Choices(), runs, full, LIMITS)
    full.stop(10)
    assert "".join(session.jobs) == "abcdefgh"
    session.jobs["a"].unfinished = True
    folders = set(session.folder.iterdir())
    with pytest.raises(Refusal, match="Wait until your predictions"):
        session.add_scan(small_case(phantoms))
    assert set(session.folder.iterdir()) == folders and list(session.scans.values()) == scans


def test_jobs_may_come_while_a_session_is_asked_whether_it_is_busy(session):
    class Coming:
        @property
        def unfinished(self):
            session.jobs[str(len(session.jobs))] = self
            return False

    session.jobs["0"] = Coming()
    assert not session.busy and len(session.jobs) == 2


def test_drawings_that_are_sent_together_do_not_meet(session, phantoms, monkeypatch):
    scan = session.add_scan(small_case(phantoms))
    run = SimpleNamespace(experiment=SimpleNamespace(model=SimpleNamespace(target="binary")))
    job = Job("key", scan, 0, run, Choices(), session.folder / "key")
    job.folder.mkdir()
    job.label = np.zeros(SHAPE, np.uint8)
    both, found = threading.Barrier(2, timeout=60), []

    def read_together(path):
        both.wait()
        found.append(read_nifti(path))
        both.wait()
        return found[-1]

    def drawn(value):
        values = np.full(scan.case.grid.shape, value, np.uint8)
        return nib.Nifti1Image(values, np.eye(4)).to_bytes()

    with monkeypatch.context() as patched:
        patched.setattr(views, "read_nifti", read_together)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda v: views.read_drawing(job, drawn(v)), (0, anatomy.TUMOUR)))
    assert sorted(voxels.max() for voxels, _ in found) == [0, anatomy.TUMOUR]
    for refused in (gzip.compress(drawn(0)), b"nonsense"):
        with pytest.raises((Refusal, UserError), match=r"expected NIfTI|no NIfTI header"):
            views.read_drawing(job, refused)
    (kept,) = job.folder.iterdir()
    assert np.array_equal(np.load(kept), job.corrected)
    assert any(job.corrected_measures.volumes.values()) == job.corrected.any()


def test_several_scans_at_once_are_refused(session):
    for number in range(2):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, "PNG")
        uploads.receive(session, f"{number}.png", "", buffer.getvalue(), LIMITS)
    grey = ("data.layout=image_pairs", "data.root=gone", "model.target=binary")
    slices = ("model.dimensions=2", "pipeline.patch_size=[16,16]")
    with pytest.raises((Refusal, UserError), match="2 scans"):
        uploads.make_scan(session, load_experiment(None, [*grey, *slices]).data, {})


def test_full_disk_is_said_before_anything_is_written(session, monkeypatch):
    free = type("Usage", (), {"free": 2**30})
    monkeypatch.setattr("kerasseg.app.sessions.shutil.disk_usage", lambda _: free)
    with pytest.raises(Refusal, match="nearly full"):
        session.add_scan(None)
