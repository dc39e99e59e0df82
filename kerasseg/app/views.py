"""The files of scans and jobs that the page shows: NIfTI, pictures, tables and the report."""

import io
import json
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from PIL import Image

from kerasseg import anatomy
from kerasseg.app.jobs import Job
from kerasseg.app.sessions import Scan, Session
from kerasseg.app.uploads import GZIP
from kerasseg.datasets.nifti import nifti_bytes, read_nifti
from kerasseg.datasets.outputs import OutputFiles, write_label, write_maps
from kerasseg.serving.server.limits import Reason, Refusal, bad_input

_SETTING = "TMPDIR"
"""The setting that moves the server's files elsewhere."""
_PERCENT = 100
_OPACITY = 0.55


def nifti(array: np.ndarray, scan: Scan) -> bytes:
    """Return an array (D, H, W) as NIfTI on the scan's own grid, gzipped at the fastest level.

    Whole numbers travel as int16, which halves what a browser has to unpack.
    """
    if array.dtype == np.float32 and array.min() >= -32768 and array.max() <= 32767:
        whole = array.astype(np.int16)
        array = whole if np.array_equal(whole, array) else array
    voxels = np.ascontiguousarray(scan.case.grid.to_file(np.asarray(array)))
    return igzip.compress(nifti_bytes(voxels, scan.case.grid), 0)


def scan_view(scan: Scan, what: str) -> np.ndarray:
    """Return a modality by its number, or `truth`, as an array (D, H, W)."""
    if what == "truth" and scan.case.label is not None:
        return scan.case.label
    if what.isdecimal() and int(what) < len(scan.case.modalities):
        return scan.case.image[..., int(what)]
    raise Refusal(Reason.NOT_FOUND, "The scan has no such part.")


def job_view(job: Job, what: str, session: Session) -> np.ndarray:
    """Return a part of a finished job as an array (D, H, W) that the page lays over the scan.

    Args:
        job: The job.
        what: `label`, `corrected`, `entropy` (in percent of a bit), `errors` (against the truth),
            `probability-NUMBER` (of a channel, in percent), or `difference-JOB` (to another job).
        session: The session, in which the other job is looked up.
    """
    label = _finished(job)
    name, _, which = what.partition("-")
    if name == "label":
        return label
    if name == "corrected" and job.corrected is not None:
        return job.corrected
    if name == "entropy" and job.entropy is not None:
        return np.rint(job.entropy * _PERCENT).astype(np.uint8)
    if name == "probability" and job.probabilities is not None:
        channels = {str(k): k for k in range(job.probabilities.shape[-1])}
        if which in channels:
            return np.rint(job.probabilities[..., channels[which]] * _PERCENT).astype(np.uint8)
    if name == "errors" and job.scan.case.label is not None:
        truth = np.asarray(job.scan.case.label)
        if job.target == "binary" or job.scan.case.classes == "tumour":
            truth, label = (truth > 0).astype(np.uint8), (label > 0).astype(np.uint8)
        return _kinds(truth, label)
    if name == "difference":
        other = session.job(which)
        if other.scan is not job.scan:
            raise bad_input("The two predictions are of different scans.")
        return _kinds(label, _finished(other))
    raise Refusal(Reason.NOT_FOUND, "The prediction has no such part.")


def _finished(job: Job) -> np.ndarray:
    if job.label is None:
        raise bad_input("The prediction is not finished.")
    return job.label


def _kinds(truth: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return 1 where labels agree on tumour, then by the order of `OUTCOME_COLOURS`."""
    from kerasseg.figures.volumes import error_kinds  # matplotlib takes a second

    result = np.zeros(truth.shape, np.uint8)
    for number, mask in enumerate(error_kinds(truth, label).values(), start=1):
        result[mask] = number
    return result


def read_drawing(job: Job, body: bytes) -> None:
    """Take a label that was drawn in the browser, as NIfTI on the grid of the scan's files.

    Raises `UserError` or `Refusal` if it is no label of this scan.
    """
    _finished(job)
    if body.startswith(GZIP):
        raise bad_input("The drawing is gzip, expected NIfTI: send it as it is.")
    with tempfile.NamedTemporaryFile(prefix="drawing_", suffix=".nii", dir=job.folder) as file:
        Path(file.name).write_bytes(body)
        voxels, _ = read_nifti(Path(file.name))
    grid = job.scan.case.grid
    if voxels.shape != grid.shape:
        raise bad_input(f"The drawing has {voxels.shape} voxels, the scan {grid.shape}.")
    allowed = [0, anatomy.TUMOUR] if job.target == "binary" else list(anatomy.LABELS)
    if not np.isin(voxels, allowed).all():
        raise bad_input(f"The drawing holds other classes than {allowed}.")
    job.correct(np.ascontiguousarray(grid.to_ours(voxels).astype(np.uint8)))


def values_at(scan: Scan, place: tuple[int, int, int], job: Job | None) -> dict[str, Any]:
    """Return every modality's intensity at a voxel (d, h, w), and the class there.

    `truth` and `label` are names of classes, or None where there is no truth or no finished job.
    The label is the corrected one if there is one.
    """
    if any(not 0 <= at < size for at, size in zip(place, scan.case.image.shape, strict=False)):
        raise Refusal(Reason.NOT_FOUND, "The scan has no such voxel.")
    label = None if job is None else job.label if job.corrected is None else job.corrected
    named = {
        "truth": (scan.case.label, scan.case.classes == "tumour"),
        "label": (label, job is not None and job.target == "binary"),
    }
    found: dict[str, Any] = {
        "intensities": [
            [anatomy.MODALITY_TITLES.get(name, name), round(float(value), 4)]
            for name, value in zip(scan.case.modalities, scan.case.image[place], strict=True)
        ]
    }
    for what, (array, merged) in named.items():
        value = None if array is None else int(array[place])
        name = None if value is None else anatomy.LABELS[value]
        found[what] = "tumour" if merged and value else name
    return found


def plane(scan: Scan, axis: int, index: int, modality: int, job: Job | None) -> bytes:
    """Return a PNG of a plane with the label over it, for browsers without WebGL2."""
    from kerasseg.figures.style import grey_range
    from kerasseg.figures.volumes import planes_at

    image = scan_view(scan, str(modality))
    if not (0 <= axis < 3 and 0 <= index < image.shape[axis]):
        raise Refusal(Reason.NOT_FOUND, "The scan has no such plane.")
    whole = [slice(None)] * 3
    place = [index if a == axis else 0 for a in range(3)]
    cut = planes_at(place, whole, scan.case.spacing)[axis]
    low, high = grey_range(np.asarray(image[image.shape[0] // 2]))
    grey = np.clip((cut.cut(image) - low) / max(high - low, 1e-6), 0, 1)
    pixels = np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if job is not None and job.label is not None:
        label = cut.cut(job.label if job.corrected is None else job.corrected)
        for value, colour in class_colours(job.target).items():
            inside = label == value
            pixels[inside] = (1 - _OPACITY) * pixels[inside] + _OPACITY * np.array(colour) / 255
    picture = Image.fromarray((pixels * 255).astype(np.uint8))
    height, width = grey.shape
    picture = picture.resize((width * 2, max(round(height * cut.aspect * 2), 1)))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def class_colours(target: str) -> dict[int, tuple[int, int, int]]:
    """Return canonical id -> red, green and blue of what a label of the target holds."""
    names = {"tumour": anatomy.TUMOUR} if target == "binary" else anatomy.SUBREGIONS
    colours = {value: anatomy.COLOURS[name].lstrip("#") for name, value in names.items()}
    return {v: (int(c[:2], 16), int(c[2:4], 16), int(c[4:], 16)) for v, c in colours.items()}


def download(job: Job, what: str) -> Path:
    """Return a file of a finished job, which is made when it is asked for."""
    label, name, measures = _finished(job), job.scan.case.case_id, job.measures
    if what == "label":
        return _label_file(job, label, what, name)
    if what == "corrected":
        if job.corrected is None:
            raise bad_input("Nothing was corrected yet.")
        return _label_file(job, job.corrected, what, f"{name}_corrected")
    if what == "probabilities":
        return _probabilities_file(job)
    if what == "report":
        return _report_file(job)
    assert measures is not None
    texts: dict[str, Callable[[], str]] = {
        "csv": (job.corrected_measures or measures).as_csv,
        "json": lambda: json.dumps(summary(job), indent=2) + "\n",
    }
    if what not in texts:
        raise Refusal(Reason.NOT_FOUND, "There is no such file.")
    path = job.folder / f"{name}.{what}"
    path.write_text(texts[what](), encoding="utf-8")
    return path


def _label_file(job: Job, label: np.ndarray, folder: str, name: str) -> Path:
    files = OutputFiles(job.folder / folder, name, job.scan.picture)
    files.folder.mkdir(exist_ok=True)
    write_label(files, label, job.ids, job.scan.case.grid, job.target, _SETTING)
    return files.label


def _probabilities_file(job: Job) -> Path:
    files = OutputFiles(job.folder / "maps", job.scan.case.case_id, job.scan.picture)
    files.folder.mkdir(exist_ok=True)
    assert job.probabilities is not None
    paths = files.probabilities(job.target)
    grid = job.scan.case.grid
    write_maps(paths, job.probabilities, grid, _SETTING, picture=job.scan.picture)
    result = files.folder / f"{job.scan.case.case_id}_probabilities.zip"
    with zipfile.ZipFile(result, "w") as archive:
        for path in paths:
            archive.write(path, path.name)
            path.unlink()
    return result


def summary(job: Job) -> dict[str, Any]:
    """Return everything that is known of a finished job, as the JSON file has it."""
    case = job.scan.case
    return {
        "research_use_only": True,
        "scan": case.case_id,
        "shape_voxels": list(case.image.shape[:3]),
        "spacing_mm": list(case.spacing),
        "modalities": list(case.modalities),
        "model": job.run.name,
        "target": job.target,
        "choices": job.choices.model_dump(),
        "seconds": round(job.seconds, 2),
        "notes": job.notes,
        "measures": job.measures and asdict(job.measures),
        "corrected": job.corrected_measures and asdict(job.corrected_measures),
    }


def _report_file(job: Job) -> Path:
    """Write one HTML page that holds everything, also the picture."""
    from kerasseg.page import data_uri, write_page
    from kerasseg.prediction.predict_files import draw_prediction
    from kerasseg.prediction.prediction import Prediction

    assert job.probabilities is not None
    label = job.label if job.corrected is None else job.corrected
    prediction = Prediction(job.scan.case, job.target, np.asarray(label), job.probabilities)
    picture = job.folder / "overlay.png"
    draw_prediction(prediction, picture)
    path = job.folder / f"{job.scan.case.case_id}_report.html"
    return write_page(
        path,
        "scan_report.html",
        _SETTING,
        title=f"{job.scan.case.case_id}: segmentation",
        picture=data_uri(picture.read_bytes()),
        facts=summary(job),
        measures=job.corrected_measures or job.measures,
        corrected=job.corrected is not None,
    )
