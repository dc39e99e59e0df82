"""`Model`: one or several finished runs that take raw scans."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from kerasseg import targets
from kerasseg.datasets.case import Case
from kerasseg.datasets.findings import check_case
from kerasseg.datasets.inputs.find_inputs import find_inputs
from kerasseg.errors import UserError
from kerasseg.inference.ensemble_of import Member, ensemble_of
from kerasseg.inference.load_run import LoadedRun, load_run
from kerasseg.inference.uncertainty import uncertainty as measure_uncertainty
from kerasseg.prediction.array_case import array_case
from kerasseg.prediction.prediction import Prediction
from kerasseg.settings.data import DataSettings


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
        members = [Member(run.name, run.experiment, run) for run in runs]
        self.segmenter = runs[0] if len(runs) == 1 else ensemble_of(members, combine)
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
        masks = self.segmenter.masks_of(probabilities, case.spacing)
        label = targets.masks_to_label(masks, self.target)
        return Prediction(case, self.target, label, probabilities, entropy, variance)

    @property
    def members(self) -> int:
        """Over how many predictions the variance is taken: runs, or orientations of one run."""
        return len(self.runs) if len(self.runs) > 1 else self.runs[0].predictor.orientations


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
