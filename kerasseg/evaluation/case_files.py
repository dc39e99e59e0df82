"""Label maps and probabilities of evaluated cases, as files beside the tables of their scores."""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, CaseSource
from kerasseg.datasets.dataset_json import read_label_ids
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.labels import label_ids
from kerasseg.datasets.outputs import OutputFiles, write_label, write_maps
from kerasseg.datasets.resample import resample_probabilities
from kerasseg.errors import UserError, storage_error
from kerasseg.evaluation.results import SegmentedCase, whole_volume
from kerasseg.files import atomic_write, make_folder
from kerasseg.inference.ensemble import Ensemble
from kerasseg.inference.predictor import Predictor
from kerasseg.inference.windows import clear_air
from kerasseg.records.manifest import CaseRow
from kerasseg.targets import air_probabilities, masks_to_label

Kind = Literal["labels", "probabilities"]
KINDS: tuple[Kind, ...] = ("labels", "probabilities")


@dataclass(frozen=True)
class CaseFiles:
    """Writes label maps and probabilities as `kerasseg predict` does: on the grid of the scan's own
    files, with the label ids of their data set.

    Attributes:
        folder: folder in which `labels` and `probabilities` are made.
        data: section `data` of the run; its pictures come out as pictures.
        kinds: which of `KINDS` are written.
        written: the files that have been written.
    """

    folder: Path
    data: DataSettings
    setting: str
    kinds: Collection[Kind] = KINDS
    written: list[Path] = field(default_factory=list)

    def write(
        self, row: CaseRow, segmented: SegmentedCase, predictor: Predictor | Ensemble
    ) -> None:
        """Write the files of a case, whose row in the store is `row`.

        Where the store was resampled, the probabilities are brought back to the scan's grid and
        masks are made of them there; so are shares of votes, whereas `kerasseg predict` lets its
        runs vote on that grid. Raises `UserError` where a file cannot be written.
        """
        if not self.kinds:
            return
        stored, target = segmented.stored, segmented.target
        case, scan = stored.case, self._read_scan(stored.case)
        grid = scan.grid if scan else case.grid
        same_grid = tuple(stored.full_shape) == grid.our_shape and np.allclose(
            case.affine, grid.our_affine
        )
        if same_grid:
            masks = whole_volume(stored, segmented.masks)
        if "probabilities" in self.kinds or not same_grid:
            around = air_probabilities(target)
            probabilities = whole_volume(stored, segmented.probabilities, around)
            if not same_grid:
                probabilities = resample_probabilities(
                    probabilities, case.affine, grid.our_shape, grid.our_affine
                )
                runs: Any = predictor.predictors if isinstance(predictor, Ensemble) else [predictor]
                if scan and all(run.settings.air_is_background for run in runs):
                    clear_air(probabilities, scan.image, around)
                masks = predictor.masks_from_probabilities(probabilities, grid.spacing)
        picture = self.data.facts.single_pictures
        if "probabilities" in self.kinds:
            files = OutputFiles(self._make_folder("probabilities"), case.case_id, picture)
            paths = files.probabilities(target)
            write_maps(paths, probabilities, grid, self.setting, picture=picture)
            self.written.extend(paths)
        if "labels" in self.kinds:
            files = OutputFiles(self._make_folder("labels"), case.case_id, picture)
            label = masks_to_label(masks, target)
            ids = self._ids(row, target)
            write_label(files, label, ids, grid, target, self.setting)
            self.written.append(files.label)

    @cached_property
    def _sources(self) -> dict[str, CaseSource]:
        """The cases by the scans' own files; none if these are gone."""
        try:
            return {source.case_id: source for source in discover(self.data)}
        except UserError:
            return {}

    def _read_scan(self, case: Case) -> Case | None:
        """Read the scan's own files, as a store has neither their header nor the air of their grid.

        Return None if they are gone or are others now, or if they say nothing about space.
        """
        source = self._sources.get(case.case_id) if self.data.facts.knows_spacing else None
        try:
            scan = source.load() if source else None
        except UserError:
            return None
        if scan is None or scan.grid.shape != case.grid.shape:
            return None
        return scan if np.allclose(scan.grid.affine, case.grid.affine) else None

    def _ids(self, row: CaseRow, target: str) -> Mapping[int, int]:
        files = [(self.data.root or Path()) / file.name for file in row.files]
        return label_ids(None, self.data, target, read_label_ids(files, self.data))

    def _make_folder(self, kind: Kind) -> Path:
        folder = self.folder / kind
        make_folder(folder, self.setting)
        return folder


def gather_files(files: Sequence[Path], folder: Path, setting: str) -> list[Path]:
    """Put the files of several evaluations into one folder.

    `…/labels/a.nii.gz` becomes `folder/labels/a.nii.gz`, and so on: a hard link, which takes no
    space, or a copy where the file system has none. Raises `UserError` where one cannot be written.
    Returns the new paths.

    Args:
        files: files in folders `labels` and `probabilities`.
        folder: the new folder.
    """
    result = []
    for path in files:
        place = folder / path.parent.name / path.name
        make_folder(place.parent, setting)
        with atomic_write(place, setting) as temporary:
            temporary.unlink(missing_ok=True)  # of a run that was killed
            try:
                os.link(path, temporary)
            except OSError:
                shutil.copyfile(path, temporary)
        result.append(place)
    return result


_ENDINGS = (".nii.gz", ".png", ".tif")


def remove_older_files(
    folder: Path, kinds: Collection[Kind], written: Collection[Path], setting: str
) -> list[str]:
    """Remove files of cases that this evaluation does not have, so that files and tables agree.

    Returns a warning for each kind that an earlier evaluation has left.

    Args:
        kinds: the kinds that this evaluation has written; others are left as they are.
    """
    warnings = []
    for kind in KINDS:
        found = [p for p in sorted((folder / kind).glob("[!.]*")) if p.name.endswith(_ENDINGS)]
        if found and kind not in kinds:
            warnings.append(
                f"The files in {kind}/ are of an earlier evaluation, not of this one: "
                f"--save-{kind} writes them anew."
            )
        for path in found if kind in kinds else ():
            if path not in written:
                try:
                    path.unlink()
                except OSError as error:
                    raise storage_error(error, f"Removing {path}", setting) from error
    return warnings
