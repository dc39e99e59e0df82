"""What the files of a case say of the ids in their labels."""

import json
from pathlib import Path

import pytest

from kerasseg.config.data import DataSettings
from kerasseg.datasets.dataset_json import read_label_ids

MSD = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}


def data(layout, **values):
    return DataSettings(layout=layout, root="nowhere", **values)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a-t2f.nii.gz", "a-seg.nii.gz"), {0: 0, 1: 1, 2: 2, 3: 3}),
        (("a_T1C.nii",), {0: 0, 1: 1, 2: 2, 3: 3}),
        (("a_flair.nii.gz", "a_seg.nii.gz"), None),
        ((), None),
    ],
)
def test_names_of_brats(names, expected):
    assert read_label_ids([Path(name) for name in names], data("brats_nifti")) == expected


def test_a_dataset_json_near_them(tmp_path):
    images = tmp_path / "imagesTr"
    files = [images / "a.nii.gz", tmp_path / "labelsTr" / "a.nii.gz"]
    assert read_label_ids(files, data("msd")) is None, "the scans were put away"
    images.mkdir()
    values = {"modality": {"0": "FLAIR"}, "labels": MSD}
    (tmp_path / "dataset.json").write_text(json.dumps(values))
    own = {0: 0, 1: 2, 2: 1, 3: 3}
    for layout in ("msd", "nnunet"):
        assert read_label_ids(files, data(layout)) == own
    patterns = data("nifti", files={"flair": "{case}.nii.gz"})
    for other in (data("brats_nifti"), data("lgg"), patterns):
        assert read_label_ids(files, other) is None
