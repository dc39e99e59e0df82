"""Which ids are written."""

import pytest

from kerasseg.config.data import DataSettings
from kerasseg.datasets.labels import label_ids
from kerasseg.errors import UserError

MSD_INPUT = {0: 0, 2: 1, 1: 2, 3: 3}


def data(layout, **values):
    return DataSettings(layout=layout, root="nowhere", **values)


@pytest.mark.parametrize(
    ("layout", "convention", "of_input", "expected"),
    [
        ("brats_nifti", None, None, (0, 1, 2, 4)),
        ("brats_h5", None, None, (0, 1, 2, 4)),
        ("brats_nifti", "brats23", None, (0, 1, 2, 3)),
        ("brats_nifti", None, {0: 0, 1: 1, 2: 2, 3: 3}, (0, 1, 2, 3)),
        ("brats_nifti", "brats", {0: 0, 1: 1, 2: 2, 3: 3}, (0, 1, 2, 4)),
        ("msd", None, None, (0, 2, 1, 3)),
        ("nnunet", None, None, (0, 1, 2, 3)),
        ("nnunet", None, MSD_INPUT, (0, 2, 1, 3)),
    ],
)
def test_sub_regions(layout, convention, of_input, expected):
    found = label_ids(convention, data(layout), "labels", of_input)
    assert tuple(found[i] for i in range(4)) == expected


def test_the_runs_own_map():
    own = data("brats_nifti", label_map={0: 0, 10: 1, 30: 2, 20: 3, 4: 0, 40: 3})
    found = label_ids(None, own, "regions", MSD_INPUT)
    assert dict(found) == {0: 0, 1: 10, 2: 30, 3: 20}
    lacking = data("brats_nifti", label_map={0: 0, 2: 2})
    with pytest.raises(UserError, match=r"no id for NCR, ET: .*--labels brats.brats23"):
        label_ids(None, lacking, "regions", None)
    assert label_ids("brats", lacking, "regions", None)[3] == 4


def test_tumour_of_any_kind():
    assert label_ids("brats", data("brats_nifti"), "binary", None) == {0: 0, 1: 1}
    own = data("nnunet", classes="tumour", label_map={0: 0, 5: 1})
    assert label_ids(None, own, "binary", None) == {0: 0, 1: 5}
