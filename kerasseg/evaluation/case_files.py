"""`CaseFiles`: the label maps of evaluated cases, and their probabilities, as files.

The files of several evaluations in one folder.

Label maps and probabilities of an earlier evaluation in the same folder.
"""

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from kerasseg.config.data import DataSettings
from kerasseg.datasets.dataset_json import read_label_ids
from kerasseg.datasets.labels import label_ids
from kerasseg.datasets.outputs import OutputFiles, write_label, write_maps
from kerasseg.datasets.resample import resample_probabilities
from kerasseg.errors import storage_error
from kerasseg.evaluation.results import whole_volume
from kerasseg.files import atomic_write
from kerasseg.inference.ensemble import Ensemble
from kerasseg.inference.predictor import Predictor
from kerasseg.records.manifest import CaseRow
from kerasseg.records.schema import StoredCase
from kerasseg.targets import air_probabilities, masks_to_label

Kind = Literal["labels", "probabilities"]
KINDS: tuple[Kind, ...] = ("labels", "probabilities")


@dataclass(frozen=True)
class CaseFiles:
    """Writes into `folder/labels` and `folder/probabilities`, as far as `kinds` names them, what
    `kerasseg predict` writes for the scans: on their own grid, with the ids of their data set.

    data:    section of the run, whose pictures come out as pictures
    setting: what would move the folder, for messages
    written: the files so far
    """

    folder: Path
    data: DataSettings
    setting: str
    kinds: Collection[Kind] = KINDS
    written: list[Path] = field(default_factory=list)

    def write(
        self,
        row: CaseRow,
        stored: StoredCase,
        predictor: Predictor | Ensemble,
        probabilities: np.ndarray,
        masks: np.ndarray,
    ) -> None:
        """Write a case: its row and record, probabilities and masks (d, h, w, K) of the stored box.

        Where the store was resampled, the probabilities are brought back to the scan's grid, and
        masks made of them there; so are shares of votes, whereas `kerasseg predict` lets its runs
        vote on that grid. Raises `UserError` where a file cannot be written.
        """
        if not self.kinds:
            return
        case, target = stored.case, predictor.target
        grid = case.grid
        same = tuple(stored.full_shape) == grid.our_shape and np.allclose(
            case.affine, grid.our_affine
        )
        whole = None
        if "probabilities" in self.kinds or not same:
            whole = whole_volume(stored, probabilities, air_probabilities(target))
        if same:
            masks = whole_volume(stored, masks)
        else:
            assert whole is not None  # made above
            whole = resample_probabilities(whole, case.affine, grid.our_shape, grid.our_affine)
            masks = predictor.masks_from_probabilities(whole, grid.spacing)
        picture = self.data.layout == "image_pairs"
        if "probabilities" in self.kinds:
            assert whole is not None  # made above
            files = OutputFiles(self._made("probabilities"), case.case_id, picture)
            paths = files.probabilities(target)
            write_maps(paths, whole, grid, self.setting, picture=picture)
            self.written.extend(paths)
        if "labels" in self.kinds:
            files = OutputFiles(self._made("labels"), case.case_id, picture)
            label = masks_to_label(masks, target)
            ids = self._ids(row, target)
            write_label(files, label, ids, grid, target, self.setting)
            self.written.append(files.label)

    def _ids(self, row: CaseRow, target: str) -> Mapping[int, int]:
        files = [(self.data.root or Path()) / file.name for file in row.files]
        return label_ids(None, self.data, target, read_label_ids(files, self.data))

    def _made(self, kind: Kind) -> Path:
        folder = self.folder / kind
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, f"Making {folder}", self.setting) from error
        return folder


def gather_files(files: Sequence[Path], folder: Path, setting: str) -> list[Path]:
    """Put `…/labels/a.nii.gz` as `folder/labels/a.nii.gz`, and so on; returns the new paths.

    They are second names of the same files (hard links), which take no space, or copies where the
    file system has none. Raises `UserError` where one cannot be written.
    """
    result = []
    for path in files:
        place = folder / path.parent.name / path.name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, f"Making {place.parent}", setting) from error
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
    """Remove, of the kinds that were written anew, what is of other cases than `written`, so that
    the files are those of the tables. Returns a warning for each kind that was not, but is there.
    """
    warnings = []
    for kind in KINDS:
        there = [p for p in sorted((folder / kind).glob("[!.]*")) if p.name.endswith(_ENDINGS)]
        if there and kind not in kinds:
            warnings.append(
                f"The files in {kind}/ are of an earlier evaluation, not of this one: "
                f"--save-{kind} writes them anew."
            )
        for path in there if kind in kinds else ():
            if path not in written:
                try:
                    path.unlink()
                except OSError as error:
                    raise storage_error(error, f"Removing {path}", setting) from error
    return warnings
