"""A run folder -> a predictor for raw cases."""

import dataclasses
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kerasseg.config.experiment import Experiment
from kerasseg.config.load import load_experiment
from kerasseg.datasets.case import Case
from kerasseg.datasets.checks import to_grid
from kerasseg.datasets.resample import resample_probabilities
from kerasseg.errors import UserError
from kerasseg.inference.predictor import Predictor, predictor_of
from kerasseg.inference.tune_postprocessing import with_tuned
from kerasseg.inference.windows import find_brain_box
from kerasseg.records.normalise import z_score


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
        return self.masks_of(self.probabilities(scan), size)

    def masks_of(self, probabilities: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """What `masks` makes of probabilities (D, H, W, K); spacing (D, H, W) in mm."""
        return self.predictor.masks_of(probabilities, spacing)

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
    """The run in `folder`, by its best checkpoint.

    overrides: settings of `evaluation` and `postprocessing` that are to be others than in the run,
               such as "evaluation.flips=[width]"

    Raises `UserError`, naming the folder, if it is not that of a run or has no checkpoint.
    """
    config = folder / "config.yaml"
    if not config.is_file():
        raise UserError(
            f"{folder} is not the folder of a run: it has no config.yaml. Runs here: "
            f"{_runs_beside(folder)}."
        )
    experiment = load_experiment(config, overrides)
    if not any(override.startswith("postprocessing") for override in overrides):
        experiment = with_tuned(folder, experiment)
    checkpoint = folder / "checkpoints" / "best.keras"
    if not checkpoint.is_file():
        raise UserError(
            f"The run {folder} has no checkpoint {checkpoint.relative_to(folder)}: its training "
            "has not come to the end of an epoch; go on with --resume, or name another run. Runs "
            f"with one: {_runs_beside(folder)}."
        )
    try:
        network = keras.saving.load_model(checkpoint, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{checkpoint} cannot be read as a Keras network "
            f"({' '.join(str(error).split())[:200]}): name another run."
        ) from error
    predictor = predictor_of(experiment, network)
    return LoadedRun(folder, experiment, predictor)


def _runs_beside(folder: Path) -> str:
    names = sorted(p.parents[1].name for p in folder.parent.glob("*/checkpoints/best.keras"))
    return ", ".join(names) or "none"
