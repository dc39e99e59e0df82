"""Patches that a store cannot give are refused before anything is trained."""

import pytest

from kerasseg.errors import UserError
from kerasseg.pipeline.sampling import check_store
from kerasseg.records.manifest import Manifest
from kerasseg.records.store import RecordStore
from tests.conftest import phantom_experiment


def without(store: RecordStore, *classes: str) -> RecordStore:
    """The store as it would be if no case had some classes."""
    rows = [
        row.model_copy(update={"voxels": row.voxels | dict.fromkeys(classes, 0)})
        for row in store.manifest.cases
    ]
    manifest: Manifest = store.manifest.model_copy(update={"cases": rows})
    return RecordStore(store.root, manifest)


def check(store, tmp_path, *overrides):
    check_store(phantom_experiment(tmp_path, *overrides), store, list(store.rows)[:5])


def test_a_share_of_tumour_in_a_store_without_any(phantom_store, tmp_path):
    check(phantom_store, tmp_path)
    healthy = without(phantom_store, "NCR", "ED", "ET")
    with pytest.raises(UserError, match=r"tumour_share=0.6, but none of the 5 .* has any tumour"):
        check(healthy, tmp_path)
    check(healthy, tmp_path, "pipeline.tumour_share=0")
    check(without(phantom_store, "NCR", "ED"), tmp_path)


def test_a_share_of_a_class_that_no_case_has(phantom_store, tmp_path):
    shares = "pipeline.class_shares={NCR: 0.2, ET: 0.3}"
    check(phantom_store, tmp_path, shares)
    check(without(phantom_store, "ED"), tmp_path, shares)
    with pytest.raises(UserError, match=r"ET: 0.3, but none .* has any ET \(found: ED, NCR\)"):
        check(without(phantom_store, "ET"), tmp_path, shares)


def test_a_patch_larger_than_every_padded_volume(phantom_store, tmp_path):
    full = next(iter(phantom_store.rows.values())).full_shape
    stride = 32
    padded = [-(-n // stride) * stride for n in full]
    check(phantom_store, tmp_path, f"pipeline.patch_size={padded}")
    too_wide = [*padded[:2], padded[2] + stride]
    with pytest.raises(
        UserError, match=rf"{padded[2] + stride} voxels in width .* use {padded[2]}"
    ):
        check(phantom_store, tmp_path, f"pipeline.patch_size={too_wide}")


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ("{NCR: 0.7, ET: 0.5}", "add up to 1.2"),
        ("{tumour: 0.5, ET: 0.1}", "name either it or sub-regions"),
        ("{tumour: 0.5}", "tell apart: NCR, ED, ET"),
        ("{NCR: 1.5}", "at most 1"),
        ("{TC: 0.5}", "TC"),
    ],
)
def test_shares_that_make_no_sense_are_refused(shares, words, tmp_path):
    with pytest.raises(UserError, match="class_shares") as error:
        phantom_experiment(tmp_path, f"pipeline.class_shares={shares}")
    assert words in str(error.value)


@pytest.mark.parametrize(
    "other",
    [
        "pipeline.tumour_share=0.3",
        "pipeline.slices.empty_share=0.3",
    ],
)
def test_two_sayings_of_where_patches_lie_are_refused(other, tmp_path):
    flat = ("model.dimensions=2", "pipeline.patch_size=[16,12]")
    with pytest.raises(UserError, match="both say where patches lie"):
        phantom_experiment(tmp_path, *flat, "pipeline.class_shares={ET: 0.3}", other)
