"""Finished runs that take raw scans: `load` gives a `Model`, and that gives a `Prediction`."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from kerasseg import targets
from kerasseg.config.data import DataSettings
from kerasseg.config.experiment import Experiment
from kerasseg.datasets import checks
from kerasseg.datasets.case import Case
from kerasseg.datasets.inputs import find_inputs
from kerasseg.datasets.resample import resample_probabilities
from kerasseg.errors import UserError
from kerasseg.inference.ensemble import EnsembleRun, build_ensemble
from kerasseg.inference.predictor import Predictor, build_predictor
from kerasseg.inference.uncertainty import uncertainty as measure_uncertainty
from kerasseg.inference.windows import clear_air
from kerasseg.prediction.prediction import Prediction, array_case
from kerasseg.progress import report
from kerasseg.records.normalise import brain_mask, normalise
from kerasseg.run import needed_modalities, read_run


@dataclass(frozen=True)
class LoadedRun:
    """The network of a finished run, for raw cases.

    A case is brought to the modalities, the grid (`data.size`, `data.spacing`) and the intensities
    of the run; what comes out is on the case's own grid again.
    """

    folder: Path
    experiment: Experiment
    predictor: Predictor
    voxel_sizes: tuple[Sequence[float], Sequence[float]] | None = None
    """The smallest and largest voxel (D, H, W) in mm that it was trained on, where known."""
    intensities: tuple[Sequence[Sequence[float]], Sequence[Sequence[float]]] | None = None
    """Mean and deviation (C, 2) of the `intensity_profile` of the training's scans, where known."""

    @property
    def name(self) -> str:
        """Return the run's folder."""
        return str(self.folder)

    @property
    def target(self) -> str:
        """Return what it predicts, a key of `anatomy.TARGETS`."""
        return self.experiment.model.target

    def probabilities(self, scan: Case) -> np.ndarray:
        """Return probabilities (D, H, W, K) float32 on the grid of a raw case.

        Raises `UserError` if the case lacks a modality of the run.
        """
        prepared = self.prepare(scan)
        return self._restore(prepared, scan, self.predictor.probabilities(prepared.image))

    def members(self, scan: Case) -> Iterator[np.ndarray]:
        """Yield the probabilities of each orientation of the test-time augmentation."""
        prepared = self.prepare(scan)
        for member in self.predictor.members(prepared.image):
            yield self._restore(prepared, scan, member)

    def masks(self, scan: Case, spacing: Sequence[float] | None = None) -> np.ndarray:
        """Return masks (D, H, W, K) bool on the grid of a raw case, after post-processing.

        Args:
            scan: the case.
            spacing: voxel size (D, H, W) in mm, instead of the case's.
        """
        size = scan.spacing if spacing is None else spacing
        return self.masks_from_probabilities(self.probabilities(scan), size)

    def masks_from_probabilities(
        self, probabilities: np.ndarray, spacing: Sequence[float]
    ) -> np.ndarray:
        """Make masks (D, H, W, K) of probabilities of that shape; spacing (D, H, W) in mm."""
        return self.predictor.masks_from_probabilities(probabilities, spacing)

    def notes_on(self, scan: Case) -> list[str]:
        """Say what of a raw case is unlike the scans that the run was trained on."""
        intensities = checks.note_on_intensities(scan, self.experiment.data)
        return [*intensities, *self._note_on_voxels(scan), *self._note_on_order(scan)]

    def _note_on_order(self, scan: Case) -> list[str]:
        needed = self.experiment.data.modalities
        guessed = any(note.startswith(checks.NO_NAMES) for note in scan.notes)
        if self.intensities is None or not guessed or scan.modalities != needed:
            return []
        order = checks.likelier_order(scan, *map(np.array, self.intensities))
        if order is None:
            return []
        channels = ", ".join(f"{m}: {n}" for m, n in zip(needed, order, strict=True))
        return [
            "its intensities speak against this order: by those of the training "
            f"data.channels={{{channels}}} is likelier; look which channel is which"
        ]

    def _note_on_voxels(self, scan: Case) -> list[str]:
        if self.voxel_sizes is None:
            return []
        resampled = self.experiment.data.spacing is not None
        least, most = checks.voxel_limits(*self.voxel_sizes, resampled=resampled)
        if all(a <= size <= b for a, size, b in zip(least, scan.spacing, most, strict=True)):
            return []
        return [
            checks.voxel_note(*self.voxel_sizes, resampled=resampled).format(
                checks.format_sizes(scan.spacing)
            )
        ]

    def prepare(self, scan: Case) -> Case:
        """Return a raw case as the training saw it, but not cropped.

        Raises `UserError` if it lacks a modality of the run.
        """
        needed = self.experiment.data.modalities
        missing = [name for name in needed if name not in scan.modalities]
        if missing:
            raise UserError(
                f"{scan.case_id} has no {', '.join(missing)}, which {self.folder} needs: it has "
                f"{', '.join(scan.modalities)}, the run was trained on {', '.join(needed)}."
            )
        image = scan.image
        if needed != scan.modalities:
            image = image[..., [scan.modalities.index(name) for name in needed]]
        label, box_run = None, self.predictor.box_run
        if box_run is not None:  # what another run finds is brought to the grid as a label is
            other = LoadedRun(box_run[0].folder, box_run[0].experiment, box_run[1])
            label = np.any(other.masks(scan), axis=-1).astype(np.uint8)
        case = dataclasses.replace(scan, image=image, label=label, modalities=needed, signal=None)
        case = checks.to_grid(case, self.experiment.data)
        report(2, 3, preparing=True)
        image = normalise(
            case.image,
            brain_mask(case.image)[0],
            skull_stripped=self.experiment.data.skull_stripped,
            normalisation=self.experiment.data.normalisation,
        )
        report(3, 3, preparing=True)
        if case.label is not None:
            image = self.predictor.with_prompt(image, case.label)
        return dataclasses.replace(case, image=image)

    def _restore(self, prepared: Case, scan: Case, probabilities: np.ndarray) -> np.ndarray:
        shape = scan.image.shape[:3]
        if probabilities.shape[:3] == shape and np.allclose(prepared.affine, scan.affine):
            return probabilities
        found = resample_probabilities(probabilities, prepared.affine, shape, scan.affine)
        if self.predictor.settings.air_is_background:
            # Interpolation has brought tissue's probabilities into the air beside it.
            needed = [scan.modalities.index(name) for name in self.experiment.data.modalities]
            clear_air(found, scan.image[..., needed], self.predictor.background)
        return found


def load_run(folder: Path, overrides: Sequence[str] = ()) -> LoadedRun:
    """Load the best network of a run folder.

    Args:
        overrides: settings of `evaluation` and `postprocessing` that differ from those of the
            run, such as "evaluation.flips=[width]".

    Raises:
        UserError: as `run.read_run` and `run.load_network` do.
    """
    run = read_run(folder, overrides)
    if run.experiment.model.sam.prompt_of_truth:
        raise UserError(
            f"{folder} gets the {run.experiment.model.sam.described_prompt}, which a scan to be "
            "predicted has not: name a run that finds the boxes with model.sam.prompt=box and "
            "model.sam.boxes_from=RUN, or set model.sam.prompt=none."
        )
    predictor = build_predictor(run.experiment, run.load_network())
    return LoadedRun(
        folder, run.experiment, predictor, run.seen("voxel_sizes"), run.seen("intensities")
    )


class Model:
    """Finished runs that predict raw scans, on the scans' own grid.

    Args:
        runs: runs of one `model.target`; more than one are an ensemble.
        combine: whether probabilities are averaged, or masks vote.
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
        """Return what a scan must have: what any of the runs needs, or what gives it boxes."""
        return needed_modalities(run.experiment for run in self.runs)

    @property
    def data(self) -> DataSettings:
        """Return the first run's section `data`, with the modalities of all runs."""
        return self.runs[0].experiment.data.model_copy(update={"modalities": self.modalities})

    def predict(
        self,
        scan: Path | str | np.ndarray,
        *,
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        layout: str | None = None,
        uncertainty: bool = False,
    ) -> Prediction:
        """Predict one scan.

        Args:
            scan: a case's folder or file, or raw intensities (D, H, W, C), axes growing to
                superior, posterior, left, channels as in `modalities`.
            spacing: voxel size (D, H, W) of an array in mm.
            layout: the layout of the files, if it is not recognised.
            uncertainty: whether entropy and variance are measured.

        Raises:
            UserError: there is not exactly one case, or it cannot be predicted.
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
        """Predict a raw case. What is odd about it is in the notes of the prediction's case.

        Raises:
            UserError: a channel is empty, constant or has NaN, or the case is a single slice and
                the model takes volumes.
        """
        case = checks.check_case(case)
        report(1, 3, preparing=True)  # two parts follow in `prepare`
        case.notes += dict.fromkeys(note for run in self.runs for note in run.notes_on(case))
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
        """Return how many predictions the variance is of: runs, or one run's orientations."""
        return len(self.runs) if len(self.runs) > 1 else len(self.runs[0].predictor.orientations)


def load(
    *runs: Path | str,
    combine: Literal["mean", "vote"] = "mean",
    overrides: Sequence[str] = (),
) -> Model:
    """Load the best networks of one or several run folders.

    Args:
        runs: the run folders.
        combine: whether several runs' probabilities are averaged, or their masks vote.
        overrides: settings that differ from those of the runs, such as
            "evaluation.flips=[width]".

    Raises:
        UserError: a run cannot be read, or the runs do not go together.

    Examples:
        >>> model = kerasseg.load("runs/brats_fold0", "runs/brats_fold1")
        >>> model.predict("BraTS2021_00000").save("label.nii.gz")
    """
    if not runs:
        raise UserError("kerasseg.load needs at least one run folder.")
    return Model([load_run(Path(run), overrides) for run in runs], combine)
