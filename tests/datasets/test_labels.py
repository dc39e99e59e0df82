import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerasseg.anatomy import BRATS_LABEL_MAP
from kerasseg.datasets.labels import canonical_labels, label_map_of_names
from kerasseg.errors import UserError

DTYPES = [np.uint8, np.int16, np.int32, np.uint16, np.float32, np.float64]


@given(
    hnp.arrays(
        np.int64, hnp.array_shapes(min_dims=3, max_dims=3), elements=st.sampled_from([0, 1, 2])
    ),
    st.sampled_from([3, 4]),
    st.sampled_from(DTYPES),
)
def test_any_dtype_and_either_id_of_enhancing(values, enhancing, dtype):
    values.flat[0] = enhancing
    mapped = canonical_labels(values.astype(dtype), BRATS_LABEL_MAP, "seg.nii")
    assert mapped.dtype == np.uint8 and mapped.shape == values.shape
    np.testing.assert_array_equal(mapped, np.where(values == enhancing, 3, values))


def test_a_slope_that_leaves_almost_whole_numbers():
    values = np.array([[[0.0, 0.99999, 2.00001, 3.9999]]])
    assert canonical_labels(values, BRATS_LABEL_MAP, "seg.nii").ravel().tolist() == [0, 1, 2, 3]


def test_a_map_of_one_s_own_may_merge_classes_and_name_negative_ids():
    brats_2015 = {-1: 0, 0: 0, 1: 1, 2: 2, 3: 1, 4: 3}
    values = np.array([[[-1, 0, 1, 2, 3, 4]]], np.int16)
    assert canonical_labels(values, brats_2015, "seg").ravel().tolist() == [0, 0, 1, 2, 1, 3]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 1, 7], "label value(s) [7] are unknown, known are [0, 1, 2, 3, 4]"),
        ([0, -1], "label value(s) [-1] are unknown"),
        ([0, 1.5], "whole numbers, found values such as 1.5"),
        ([0, float("nan")], "NaN or infinite"),
        ([0, 3, 4], "labels 3 and 4 both occur"),
    ],
)
def test_refused(values, words):
    with pytest.raises(UserError) as error:
        canonical_labels(np.array(values), BRATS_LABEL_MAP, "case/seg.nii")
    assert words in str(error.value) and "case/seg.nii" in str(error.value)


@pytest.mark.parametrize(
    "names",
    [
        ("background", "edema", "non-enhancing tumor", "enhancing tumour"),
        ("Background", "Peritumoral oedema", "NCR/NET", "GD-enhancing tumor"),
        ("background", "SNFH", "NETC", "ET"),
        ("0", "surrounding non-enhancing FLAIR hyperintensity", "necrotic core", "Enhancing"),
        ("background", "edema", "non-contrast-enhancing tumour", "contrast-enhancing tumour"),
        ("background", "ED", "tumour_not_enhancing", "gd enhancing"),
    ],
)
def test_the_names_that_data_sets_give_to_labels(names):
    assert label_map_of_names(dict(enumerate(names)), "x") == {0: 0, 1: 2, 2: 1, 3: 3}


def test_a_name_of_two_classes_is_not_guessed():
    with pytest.raises(UserError, match=r"called 'enhancing and necrotic core', which is none of"):
        label_map_of_names({1: "enhancing and necrotic core"}, "dataset.json")


def test_both_ids_of_enhancing_where_the_user_chose_the_map():
    label = canonical_labels(np.array([0, 3, 4]), BRATS_LABEL_MAP, "seg.nii", chosen=True)
    assert label.tolist() == [0, 3, 3]
