"""Finished runs that take raw scans: `load` gives a `Model`, and that gives a `Prediction`."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from kerasseg import anatomy, targets
from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.datasets.case import Case, Grid
from kerasseg.datasets.checks import check_case, to_grid
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.label_ids import own_label
from kerasseg.datasets.nifti import write_nifti
from kerasseg.datasets.resample import resample_probabilities, restore_label
from kerasseg.errors import UserError
from kerasseg.inference.ensemble import EnsembleRun, build_ensemble
from kerasseg.inference.predictor import Predictor, build_predictor
from kerasseg.inference.uncertainty import uncertainty as measure_uncertainty
from kerasseg.inference.windows import find_brain_box
from kerasseg.records.normalise import z_score
from kerasseg.run import read_run


def array_case(
    image: np.ndarray, spacing: Sequence[float], modalities: tuple[str, ...], name: str = "array"
) -> Case:
    """Raw intensities (D, H, W, C) -> a case at the origin, with the house's axes.

    spacing: voxel size (D, H, W) in mm

    Raises `UserError` for another number of axes or channels, for values that are no numbers, and
    for an impossible voxel size.
    """
    wanted = f"(depth, height, width, {len(modalities)}) with the channels {', '.join(modalities)}"
    if image.ndim != 4:
        raise UserError(
            f"The array has shape {image.shape}, expected {wanted}; a picture has a depth of 1."
        )
    if image.shape[-1] != len(modalities):
        raise UserError(
            f"The array has {image.shape[-1]} channel(s), shape {image.shape}, expected {wanted}."
        )
    if 0 in image.shape or image.dtype.kind not in "iufb":
        raise UserError(f"The array, {image.dtype} of shape {image.shape}, holds no scan.")
    if len(spacing) != 3 or not all(0 < size < np.inf for size in spacing):
        raise UserError(
            f"spacing is {tuple(spacing)}, expected the voxel size (depth, height, width) in mm."
        )
    depth, height, width = image.shape[:3]
    d, h, w = (float(size) for size in spacing)
    grid = Grid((width, height, depth), np.diag([-w, -h, d, 1.0]))
    return Case(
        case_id=name,
        patient_id=name,
        image=image.astype(np.float32),
        label=None,
        spacing=(d, h, w),
        affine=grid.our_affine,
        modalities=modalities,
        grid=grid,
    )


@dataclass(frozen=True)
class Prediction:
    """Axes (depth, height, width) = (superior, posterior, left) growing, on the grid of the scan.

    case:          the scan, with the modalities that the model takes
    target:        what was predicted, a key of `anatomy.TARGETS`
    label:         (D, H, W) uint8 canonical ids; of the target binary 1 is tumour of any kind
    probabilities: (D, H, W, K) float32, its channels are `channels`
    entropy:       (D, H, W, 1 or K) float32 in bits, if it was asked for
    variance:      (D, H, W, K) float32 over runs or test-time augmentation, if there are several
    """

    case: Case
    target: str
    label: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray | None = None
    variance: np.ndarray | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the K channels."""
        return tuple(anatomy.TARGETS[self.target])

    @property
    def affine(self) -> np.ndarray:
        """4 x 4, array indices (d, h, w, 1) -> scanner RAS coordinates in mm."""
        return self.case.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size (D, H, W) in mm."""
        return self.case.spacing

    def own_label(self, ids: Mapping[int, int] | None = None) -> np.ndarray:
        """The label with a data set's own ids, canonical id -> own; the smallest unsigned dtype
        that holds them."""
        return self.label if ids is None else own_label(self.label, ids)

    def save(self, path: Path | str, ids: Mapping[int, int] | None = None) -> None:
        """Write the label as NIfTI in the grid of the scan's file, (x, y, z).

        ids: canonical id -> what is written
        """
        label = restore_label(self.own_label(ids), self.affine, self.case.grid)
        write_nifti(Path(path), label, self.case.grid, "--output")


@dataclass(frozen=True)
class LoadedRun:
    """The network of a finished run with everything that a raw case needs before and after it.

    A case is brought to the modalities, the grid (`data.size`, `data.spacing`) and the intensities
    of the run; what comes out lies on the case's own grid again.
    """

    folder: Path
    experiment: Experiment
    predictor: Predictor

    @property
    def name(self) -> str:
        """The run's folder."""
        return str(self.folder)

    @property
    def target(self) -> str:
        """What it predicts."""
        return self.experiment.model.target

    def probabilities(self, scan: Case) -> np.ndarray:
        """Raw case -> probabilities (D, H, W, K) float32 on its grid.

        Raises `UserError` if the case lacks a modality of the run.
        """
        prepared = self._prepare(scan)
        return self._restore(prepared, scan, self.predictor.probabilities(prepared.image))

    def members(self, scan: Case) -> Iterator[np.ndarray]:
        """The same of each orientation of the test-time augmentation by itself."""
        prepared = self._prepare(scan)
        for member in self.predictor.members(prepared.image):
            yield self._restore(prepared, scan, member)

    def masks(self, scan: Case, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Raw case -> masks (D, H, W, K) bool on its grid, cleaned up as `postprocessing` says.

        spacing: voxel size (D, H, W) in mm, instead of the case's
        """
        size = scan.spacing if spacing is None else spacing
        return self.masks_from_probabilities(self.probabilities(scan), size)

    def masks_from_probabilities(
        self, probabilities: np.ndarray, spacing: Sequence[float]
    ) -> np.ndarray:
        """What `masks` makes of probabilities (D, H, W, K); spacing (D, H, W) in mm."""
        return self.predictor.masks_from_probabilities(probabilities, spacing)

    def _prepare(self, scan: Case) -> Case:
        """The case as the network's training saw it, but not cropped."""
        wanted = self.experiment.data.modalities
        missing = [name for name in wanted if name not in scan.modalities]
        if missing:
            raise UserError(
                f"{scan.case_id} has no {', '.join(missing)}, which {self.folder} needs: it has "
                f"{', '.join(scan.modalities)}, the run was trained on {', '.join(wanted)}."
            )
        image = scan.image
        if wanted != scan.modalities:
            image = image[..., [scan.modalities.index(name) for name in wanted]]
        case = dataclasses.replace(scan, image=image, label=None, modalities=wanted, signal=None)
        case = to_grid(case, self.experiment.data)
        box = find_brain_box(case.image)
        image = np.zeros(case.image.shape, np.float32)
        # The store's precision, so that a raw case gives what its record gives.
        image[box] = z_score(case.image[box])[0].astype(np.float16)
        return dataclasses.replace(case, image=image)

    def _restore(self, prepared: Case, scan: Case, probabilities: np.ndarray) -> np.ndarray:
        shape = scan.image.shape[:3]
        if probabilities.shape[:3] == shape and np.allclose(prepared.affine, scan.affine):
            return probabilities
        return resample_probabilities(probabilities, prepared.affine, shape, scan.affine)


def load_run(folder: Path, overrides: Sequence[str] = ()) -> LoadedRun:
    """Load the best network of a run folder.

    Args:
        folder: the run folder.
        overrides: settings of `evaluation` and `postprocessing` that are to be others than in the
            run, such as "evaluation.flips=[width]".

    Raises:
        UserError: as `run.read_run` and `run.load_network` do.
    """
    run = read_run(folder, overrides)
    return LoadedRun(folder, run.experiment, build_predictor(run.experiment, run.load_network()))


class Model:
    """Raw scans -> predictions on the scans' own grid.

    runs:    of one `model.target`; more than one are an `Ensemble`
    combine: mean of their probabilities, or vote of their masks

    `segmenter` is the run, or the ensemble of them.
    """

    def __init__(
        self, runs: Sequence[LoadedRun], combine: Literal["mean", "vote"] = "mean"
    ) -> None:
        self.runs = tuple(runs)
        self.combine = combine
        members = [EnsembleRun(run.name, run.experiment, run) for run in runs]
        self.segmenter = runs[0] if len(runs) == 1 else build_ensemble(members, combine)
        self.target = self.segmenter.target

    @property
    def modalities(self) -> tuple[str, ...]:
        """What a scan must have: what any of the runs needs."""
        needed = (m for run in self.runs for m in run.experiment.data.modalities)
        return tuple(dict.fromkeys(needed))

    @property
    def data(self) -> DataSettings:
        """The first run's data, with the modalities of all."""
        return self.runs[0].experiment.data.model_copy(update={"modalities": self.modalities})

    def predict(
        self,
        scan: Path | str | np.ndarray,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        layout: str | None = None,
        uncertainty: bool = False,
    ) -> Prediction:
        """The prediction of one scan.

        scan:    a case's folder or file, or raw intensities (D, H, W, C), axes growing to
                 superior, posterior, left, channels as in `modalities`
        spacing: voxel size (D, H, W) of an array in mm
        layout:  how the files are laid out, instead of what they look like

        Raises `UserError` if there is not exactly one case, and for one that cannot be predicted.
        """
        if isinstance(scan, np.ndarray):
            return self.segment(array_case(scan, spacing, self.modalities), uncertainty=uncertainty)
        inputs = find_inputs([Path(scan)], self.data, layout)
        if len(inputs) > 1:
            raise UserError(
                f"{scan} holds {len(inputs)} cases, such as {inputs[0].source.case_id} and "
                f"{inputs[1].source.case_id}: name one of them, or use kerasseg predict."
            )
        return self.segment(inputs[0].source.load(), uncertainty=uncertainty)

    def segment(self, case: Case, *, uncertainty: bool = False) -> Prediction:
        """The prediction of a raw case.

        Raises `UserError` for NaN, for an empty or constant channel, and for a single slice where
        the model takes volumes.
        """
        check_case(case)
        for run in self.runs:
            if case.image.shape[0] == 1 and len(run.predictor.pipeline.patch_size) == 3:
                raise UserError(
                    f"{case.case_id} is a single slice, but {run.folder} takes volumes (windows of "
                    f"{list(run.predictor.pipeline.patch_size)} voxels): give the whole scan, or "
                    "use a run of a 2-D model."
                )
        entropy = variance = None
        if uncertainty:
            maps = measure_uncertainty(self.segmenter.members(case), self.target)
            probabilities, entropy = maps.probabilities, maps.entropy
            variance = maps.variance if self.members > 1 else None
        else:
            probabilities = self.segmenter.probabilities(case)
        masks = self.segmenter.masks_from_probabilities(probabilities, case.spacing)
        label = targets.masks_to_label(masks, self.target)
        return Prediction(case, self.target, label, probabilities, entropy, variance)

    @property
    def members(self) -> int:
        """Over how many predictions the variance is taken: runs, or orientations of one run."""
        return len(self.runs) if len(self.runs) > 1 else len(self.runs[0].predictor.orientations)


def load(
    *runs: Path | str,
    combine: Literal["mean", "vote"] = "mean",
    overrides: Sequence[str] = (),
) -> Model:
    """The model of one or several run folders, by their best checkpoints.

    overrides: settings that are to be others than in the runs, such as "evaluation.flips=[width]"

    Raises `UserError` for a folder that is no run's or has no checkpoint, for runs of several
    targets, and for runs whose means would be made into masks in different ways.
    """
    if not runs:
        raise UserError("kerasseg.load needs at least one run folder.")
    return Model([load_run(Path(run), overrides) for run in runs], combine)


class Segmenter(Protocol):
    """What `predict_files` needs of a `Model`."""

    @property
    def data(self) -> DataSettings:
        """Which modalities it takes, and the ids of its data set."""

    @property
    def target(self) -> str:
        """A key of `anatomy.TARGETS`."""

    @property
    def members(self) -> int:
        """Over how many predictions the variance is taken."""

    def segment(self, case: Case, *, uncertainty: bool = False) -> Prediction:
        """The prediction of a raw case. Raises `UserError` for one that it does not take."""
