"""`kerasseg evaluate --pred DIR --truth DIR`: anybody's segmentations, as NIfTI files or pictures.

TensorFlow is not needed here.
"""

import re
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from kerasseg import __version__, anatomy
from kerasseg.config.evaluation import MetricsSection
from kerasseg.config.layouts import PICTURES
from kerasseg.datasets.case import Grid, bring_to, lps_grid
from kerasseg.datasets.checks import voxel_error
from kerasseg.datasets.discovery import patient_of, unclear_patients
from kerasseg.datasets.folders import files_below, unpacked
from kerasseg.datasets.labels import CONVENTIONS, canonical_labels, is_named_as_2023
from kerasseg.datasets.nifti import read_nifti
from kerasseg.datasets.pictures import as_channels, one_channel, read_mask, read_picture
from kerasseg.errors import UserError, printable
from kerasseg.evaluation.report import write_evaluation
from kerasseg.evaluation.results import CasePair, Provenance, Results
from kerasseg.progress import track
from kerasseg.targets import label_to_masks

_PREFERRED = ("flair", "t2f", "0000", "")
"""Parts of file names, the preferred scan first."""
_ENDINGS = (".nii.gz", ".nii", *PICTURES)
_MODALITIES = {*anatomy.MODALITIES, *anatomy.MODALITY_ALIASES}
_MARKS = ("_seg", "-seg", "_pred", "-pred", "_prediction", "_label", "_mask")
"""Ends that a file name may have after the case id."""
_SCAN = re.compile(r"(?P<case>.+)[_-](?P<kind>[a-z0-9]+)", re.IGNORECASE)
_MASKS = {0: 0, 1 << 16: anatomy.TUMOUR}
"""Label map of pictures that are masks: their one value besides 0 is read as one no pixel has."""
_NO_SIZE = (
    "Pictures do not tell the size of a pixel: it counts as 1 mm, so distances in mm and volumes "
    "in mL are not real ones."
)
_SAME_PLACE = 1e-2
"""Millimetres by which the corners of two grids may differ, as headers keep float32."""


def evaluate_files(
    predictions: Path,
    truths: Path,
    output: Path,
    labels: str | None = None,
    settings: MetricsSection | None = None,
    images: Path | None = None,
) -> Path:
    """Compare the files of two folders, one pair in memory at a time.

    Of pictures, such as masks of slices in PNG, every value but 0 is tumour, unless `labels` says
    otherwise. Returns the page. Raises `UserError` if files are missing or do not fit together.

    Args:
        predictions: folder of predicted segmentations.
        truths: folder of true segmentations of the same names.
        labels: `--labels`, as of `parse_labels`.
        settings: section `metrics`, or None for its defaults.
        images: folder of scans of the same names, to be drawn below the outlines.
    """
    label_map, target = parse_labels(labels)
    pairs = find_pairs(predictions, truths)
    pictures = any(_is_picture(path) for pair in pairs for path in (pair.prediction, pair.truth))
    if pictures and labels is None:
        label_map, target = dict(_MASKS), "binary"
    if images is not None and not images.is_dir():
        raise UserError(f"--images {images}: there is no such folder.")
    results = Results(target, settings or MetricsSection())
    enhancing: dict[int, Path] | None = {} if labels is None else None
    description = f"Comparing {len(pairs)} pair{'' if len(pairs) == 1 else 's'} of files"
    for pair in track(pairs, len(pairs), description):
        results.add(read_pair(pair, label_map, target, enhancing))
    unclear = unclear_patients({p.case_id: patient_of(p.case_id) for p in pairs})
    if unclear:
        told = unclear.split(": say which")[0]
        print(f"Warning: {told}, so the intervals may be too narrow.")

    def image_of(case_id: str) -> np.ndarray | None:
        if images is None:
            return None
        return read_scan(images, case_id, results.pairs[case_id].shape[:3])

    any_value = pictures and labels is None
    names: dict[int | str, str] = {}
    for i, canonical in label_map.items():
        is_tumour = target == "binary" and canonical
        name = "tumour" if is_tumour else anatomy.LABELS[canonical]
        names["any other" if any_value and i else i] = name
    provenance = Provenance(
        title=f"{predictions.resolve().name} against {truths.resolve().name}",
        subtitle="Segmentations from files",
        commands={"Again": " ".join(["kerasseg", *sys.argv[1:]])},
        facts={
            "Predictions": str(predictions.resolve()),
            "Truth": str(truths.resolve()),
            "Label values": ", ".join(f"{i} {name}" for i, name in names.items()),
        },
        warnings=[_NO_SIZE] if pictures else (),
        case_kind="picture" if pictures else "volume",
        image_of=image_of,
        environment={
            "python": sys.version.split()[0],
            "packages": {
                "kerasseg": __version__,
                **{name: metadata.version(name) for name in ("numpy", "scipy", "nibabel")},
            },
        },
    )
    return write_evaluation(output, results, provenance, "--output")


@dataclass(frozen=True)
class FilePair:
    """The two files of a case."""

    case_id: str
    prediction: Path
    truth: Path


def find_pairs(predictions: Path, truths: Path) -> list[FilePair]:
    """Pair the files of two folders whose names are the same but for their ending and `_seg` or so.

    Raises `UserError` if a folder is missing or holds no NIfTI file, two files have one name, or a
    file has no partner.
    """
    found = _by_case(predictions, "--pred")
    wanted = _by_case(truths, "--truth")
    for here, there, folder in ((found, wanted, truths), (wanted, found, predictions)):
        alone = sorted(here.keys() - there.keys())
        if alone:
            shown = ", ".join(str(here[name]) for name in alone[:3])
            raise UserError(
                f"{len(alone)} file(s) have no partner of the same name in {folder}: {shown}"
                f"{', …' if len(alone) > 3 else ''}. There are {', '.join(sorted(there)[:3])}"
                f"{', …' if len(there) > 3 else ''}: rename the files, or leave out those that "
                "shall not be compared."
            )
    return [FilePair(name, found[name], wanted[name]) for name in sorted(wanted)]


def read_pair(
    pair: FilePair,
    label_map: Mapping[int, int],
    target: str,
    enhancing: dict[int, Path] | None = None,
) -> CasePair:
    """Read the two files of a case, with axes (D, H, W).

    Raises `UserError` if the files differ in shape, voxel size or place in space, or hold a label
    value that is not in `label_map`, or a 4 where another file has a 3; or no head has voxels of
    their size, so that distances and volumes would be wrong.

    Args:
        label_map: label value in the files -> canonical label.
        target: a key of `anatomy.TARGETS`.
        enhancing: which of the labels 3 and 4 occurred, and in which file; those of this pair are
            added. None if the user said what they are.
    """
    truth, grid = _read(pair.truth, label_map)
    prediction, other = _read(pair.prediction, label_map)
    _check_same_grid(pair, grid, other)
    impossible = voxel_error(grid.spacing)
    if impossible:
        raise UserError(f"{pair.truth}: {impossible}.")
    labels = [
        canonical_labels(_known(values, label_map, path, enhancing), label_map, path, chosen=True)
        for values, path in (
            (grid.to_ours(truth), pair.truth),
            (bring_to(grid, prediction, other)[0], pair.prediction),
        )
    ]
    masks = label_to_masks(labels[1], target)
    patient = patient_of(pair.case_id)
    return CasePair(pair.case_id, "files", labels[0], masks, grid.spacing, patient)


def _read(path: Path, label_map: Mapping[int, int]) -> tuple[np.ndarray, Grid]:
    """Read label values (x, y, z) and their grid; pixels of a picture are 1 mm wide."""
    if not _is_picture(path):
        return read_nifti(path)
    if label_map == _MASKS:
        pixels = read_mask(path, None).astype(np.int32) << 16
    else:
        pixels = one_channel(read_picture(path), path)
    height, width = pixels.shape
    return pixels.T[..., np.newaxis], lps_grid((width, height, 1))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in PICTURES


def parse_labels(text: str | None) -> tuple[dict[int, int], str]:
    """Return the label map and the target that `--labels` means.

    It is one of `CONVENTIONS`, or `1,2,4` are the ids of NCR, ED and ET, a single number is the id
    of tumour of any kind, and None stands for the ids of BraTS of any year. `1,2,3+4` says that two
    ids mean one class, and `0+4,1,2,3` that 4 is background. Raises `UserError` for anything else.
    """
    if text is None:
        return dict(anatomy.BRATS_LABEL_MAP), "labels"
    if text in CONVENTIONS:
        return {own: canonical for canonical, own in CONVENTIONS[text].items()}, "labels"
    groups = [[part.strip() for part in group.split("+")] for group in text.split(",")]
    background = groups.pop(0) if "0" in groups[0] and len(groups) in (2, 4) else ["0"]
    parts = [part for group in (background, *groups) for part in group]
    if (
        len(groups) not in (1, 3)
        or not all(part.isdecimal() for part in parts)
        or len(set(map(int, parts))) < len(parts)
    ):
        raise UserError(
            f"--labels {text}: expected {', '.join(CONVENTIONS)}, the ids of "
            f"{', '.join(anatomy.SUBREGIONS)} as three different numbers above 0, such as 1,2,4, "
            "or one number for tumour of any kind; 1,2,3+4 if two ids are one class, 0+4,1,2,3 if "
            "4 is background."
        )
    canonical = anatomy.SUBREGIONS.values() if len(groups) == 3 else (anatomy.TUMOUR,)
    classes = zip([background, *groups], (anatomy.BACKGROUND, *canonical), strict=True)
    label_map = {int(part): class_id for group, class_id in classes for part in group}
    return label_map, "labels" if len(groups) == 3 else "binary"


def _printable_name(path: Path) -> str:
    return unicodedata.normalize("NFC", printable(path.name))  # macOS writes NFD


def _without_ending(path: Path) -> str:
    name = _printable_name(path)
    ending = next((e for e in _ENDINGS if name.lower().endswith(e)), "")
    return name[: len(name) - len(ending)]


def _is_no_label(path: Path) -> bool:
    """Say whether `kerasseg predict` wrote a file beside its segmentations: a figure, or a map."""
    figure = path.parent.name == "overlays" and (path.parents[1] / "predictions.json").exists()
    map_of = re.search(r"_(probability|entropy|variance)(_|\.)", path.name)
    return figure or (map_of is not None and (path.parent / "predictions.json").exists())


def _by_case(folder: Path, option: str) -> dict[str, Path]:
    if not folder.is_dir():
        raise UserError(f"{option} {folder}: there is no such folder.")
    files: dict[str, Path] = {}
    for path in sorted(below / name for below, names in files_below(folder) for name in names):
        name = _without_ending(path)
        if name == _printable_name(path) or _is_no_label(path):
            continue
        for mark in _MARKS:
            if name.lower().endswith(mark) and len(name) > len(mark):
                name = name[: -len(mark)]
                break
        if name in files:
            raise UserError(
                f"{option} {folder}: {files[name].relative_to(folder)} and "
                f"{path.relative_to(folder)} are both of the case {name}: keep one."
            )
        files[name] = unpacked(path)
    for name in list(files):
        # A data set's own folder has the scans beside the segmentation, which have its name, too.
        scan = _SCAN.fullmatch(name)
        if scan and scan["case"] in files and scan["kind"].lower() in _MODALITIES:
            del files[name]
    if not files:
        raise UserError(
            f"{option} {folder}: holds no NIfTI file (.nii or .nii.gz) and no picture "
            f"({', '.join(PICTURES)})."
        )
    return files


def _check_same_grid(pair: FilePair, truth: Grid, prediction: Grid) -> None:
    if truth.our_shape != prediction.our_shape:
        raise UserError(
            f"{pair.prediction}: has {_by(prediction.shape)} voxels (x, y, z), but {pair.truth} "
            f"has {_by(truth.shape)}: bring the prediction back to the grid of the scan."
        )
    sides = [grid.spacing[::-1] for grid in (prediction, truth)]
    if not np.allclose(sides[0], sides[1], atol=_SAME_PLACE):
        raise UserError(
            f"{pair.prediction}: has voxels of {_by(sides[0])} mm (width, height, depth), but "
            f"those of {pair.truth} are {_by(sides[1])} mm: the prediction was written without the "
            "scan's header."
        )
    if bring_to(truth, np.broadcast_to(0, prediction.shape), prediction)[1] > _SAME_PLACE:
        corners = [
            ", ".join(f"{value:.2f}" for value in grid.affine[:3, 3])
            for grid in (prediction, truth)
        ]
        raise UserError(
            f"{pair.prediction}: lies elsewhere than {pair.truth}: the affine puts its first voxel "
            f"at ({corners[0]}) mm, that of the truth at ({corners[1]}) mm, or turns its axes: the "
            "prediction was written without the scan's header."
        )


def _known(
    values: np.ndarray, label_map: Mapping[int, int], path: Path, enhancing: dict[int, Path] | None
) -> np.ndarray:
    whole = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
    found = np.unique(whole)
    unknown = [
        f"{v:g}"
        for v in found
        if abs(v - round(float(v))) < 1e-3 and round(float(v)) not in label_map
    ]
    if unknown:
        raise UserError(
            f"{path}: contains label {', '.join(unknown[:5])}; expected are "
            f"{', '.join(map(str, sorted(label_map)))}: name the ids of NCR, ED and ET with "
            "--labels, such as --labels 1,2,4, or the tumour's with --labels 1."
        )
    if enhancing is not None:
        enhancing |= {i: path for i in (3, 4) if i in {round(float(v)) for v in found}}
        if 4 in enhancing and is_named_as_2023([enhancing[4]]):
            raise UserError(
                f"{enhancing[4]}: holds label 4, but under the names of BraTS 2023 and later "
                "enhancing tumour is 3: say with --labels which ids are NCR, ED and ET, such as "
                "0+4,1,2,3 if 4 is a resection cavity, which is background."
            )
        if {3, 4} <= enhancing.keys():
            where = str(path) if enhancing[3] == enhancing[4] else f"{enhancing[3]}, {enhancing[4]}"
            raise UserError(
                f"{where}: labels 3 and 4 both occur, and both mean enhancing tumour in some year "
                "of BraTS, 4 also a resection cavity: say with --labels which ids are NCR, ED and "
                "ET, such as 1,2,4, or 1,2,3+4 if both are ET, or 0+4,1,2,3 if 4 is background."
            )
    return values


def _by(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:g}" for size in np.round(sizes, 4))


def scan_file(folder: Path, case_id: str) -> Path | None:
    """Find the scan of a case below `folder`: `case_id` or `case_id_…`, FLAIR if there is one."""
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(_ENDINGS)
        and f"{_without_ending(path)}_".startswith((f"{case_id}_", f"{case_id}-"))
    ]
    found = [path for path in found if "seg" not in path.name[len(case_id) :].lower()]
    for part in _PREFERRED:
        for path in found:
            if part in path.name[len(case_id) :].lower():
                return path
    return None


def read_scan(folder: Path, case_id: str, shape: tuple[int, ...]) -> np.ndarray | None:
    """Read the grey values (D, H, W) of a case's scan, or return None where there is none.

    Raises `UserError` if its shape is not that of the segmentations, `shape`.
    """
    path = scan_file(folder, case_id)
    if path is None:
        return None
    if _is_picture(path):
        pixels = as_channels(read_picture(path), ("grey",))[..., 0]
        values, grid = pixels.T[..., np.newaxis], lps_grid((*pixels.shape[::-1], 1))
    else:
        values, grid = read_nifti(path)
    if grid.our_shape != tuple(shape):
        raise UserError(
            f"{path}: has {grid.our_shape} voxels (depth, height, width), the segmentations of "
            f"{case_id} have {tuple(shape)}: give the scans they were drawn on with --images."
        )
    return grid.to_ours(values).astype(np.float32)
