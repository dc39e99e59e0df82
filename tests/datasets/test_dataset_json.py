"""Layouts msd and nnunet, which both have a dataset.json."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from kerasseg import anatomy
from kerasseg.config.data import DataSettings
from kerasseg.datasets.dataset_json import named_channels
from kerasseg.datasets.discovery import discover
from kerasseg.datasets.inputs import find_inputs
from kerasseg.errors import UserError
from tests.conftest import LPS, to_file_axes, write_nifti

MSD_ORDER = (anatomy.FLAIR, anatomy.T1, anatomy.T1CE, anatomy.T2)
MSD_IDS = np.array([0, 2, 1, 3], np.uint8)
"""Canonical background, NCR, ED, ET -> the ids of the Decathlon."""


def msd_settings(root: Path, **more) -> DataSettings:
    return DataSettings(layout="msd", root=root, **more)


def write_msd(root: Path, cases: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    for name, (image, label) in cases.items():
        stacked = np.stack([to_file_axes(np.rint(image[..., c])) for c in range(4)], axis=-1)
        write_nifti(root / "imagesTr" / f"{name}.nii.gz", stacked.astype(np.int16), LPS)
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", to_file_axes(MSD_IDS[label]), LPS)
    description = {
        "modality": {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"},
        "labels": {
            "0": "background",
            "1": "edema",
            "2": "non-enhancing tumor",
            "3": "enhancing tumour",
        },
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in cases
        ],
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    (root / "dataset.json").write_text(json.dumps(description))
    return description


def write_nnunet(root: Path, name: str, phantom: tuple[np.ndarray, np.ndarray], ids) -> None:
    image, label = phantom
    for channel in range(4):
        values = np.rint(image[..., channel]).astype(np.int16)
        path = root / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
        write_nifti(path, to_file_axes(values), LPS)
    ids = np.array(ids, np.uint8)
    write_nifti(root / "labelsTr" / f"{name}.nii.gz", to_file_axes(ids[label]), LPS)


def test_the_decathlon_s_stack_and_labels_become_canonical(tmp_path, phantoms):
    write_msd(tmp_path / "Task01", {"BRATS_001": phantoms[0], "BRATS_002": phantoms[1]})
    sources = discover(msd_settings(tmp_path))
    assert [s.case_id for s in sources] == ["BRATS_001", "BRATS_002"]
    for source, (image, label) in zip(sources, phantoms[:2], strict=True):
        case = source.load()
        np.testing.assert_array_equal(case.image, np.rint(image))
        np.testing.assert_array_equal(case.label, label)
    chosen = discover(msd_settings(tmp_path, modalities=("t2", "flair")))[0].load()
    np.testing.assert_array_equal(chosen.image, np.rint(phantoms[0][0][..., [3, 0]]))


def test_files_that_dataset_json_names_but_are_missing(tmp_path, phantoms):
    write_msd(tmp_path, {"BRATS_001": phantoms[0], "BRATS_002": phantoms[1]})
    (tmp_path / "imagesTr" / "BRATS_001.nii.gz").unlink()
    bad, good = discover(msd_settings(tmp_path))
    with pytest.raises(UserError, match=r"dataset.json: names .*BRATS_001.nii.gz, which does not"):
        bad.load()
    assert good.load().label.any()


def test_refused_dataset_json(tmp_path, phantoms):
    description = write_msd(tmp_path, {"BRATS_001": phantoms[0]})
    path = tmp_path / "dataset.json"
    for change, words in [
        ({"labels": {"0": "background", "1": "lesion"}}, "called 'lesion', which is none of"),
        ({"modality": {"0": "CT"}}, "has no channel flair, only ct"),
        ({"labels": None}, "is no dataset.json of the Medical Segmentation Decathlon"),
        ({"training": ["imagesTr/a.nii.gz"]}, "must name an image, or a list of 4 for flair, t1"),
        ({"training": [{"image": ["a", "b"], "label": "c"}]}, "must name an image, or a list of 4"),
        ({"modality": {"0": "FLAIR", "1": "T1w", "2": "T1", "3": "T2w"}}, "'t1' occurs twice"),
        ({"modality": {"1": "FLAIR", "2": "T1w", "3": "t1gd", "4": "T2w"}}, "numbers 1, 2, 3, 4"),
        ({"labels": {"background": 0, "ED": 1, "NCR": 1, "ET": 3}}, "'1' occurs twice"),
        (
            {"labels": {"whole tumor": [1, 2], "core": [2, 3], "ET": 3}},
            "regions that do not lie within each other",
        ),
    ]:
        path.write_text(json.dumps(description | change))
        with pytest.raises(UserError, match=words):
            discover(msd_settings(tmp_path))
    path.write_text('{"labels": {}, "labels": {}}')
    with pytest.raises(UserError, match=r"dataset.json: cannot be read as JSON: 'labels' occurs"):
        discover(msd_settings(tmp_path))
    path.write_text("{")
    with pytest.raises(UserError, match=r"dataset.json: cannot be read as JSON"):
        discover(msd_settings(tmp_path))
    write_nifti(tmp_path / "imagesTr" / "BRATS_001.nii.gz", np.ones((3, 3, 3, 2), np.int16))
    path.write_text(json.dumps(description))
    (source,) = discover(msd_settings(tmp_path))
    with pytest.raises(UserError, match=r"has 2 channel\(s\), but dataset.json names 4"):
        source.load()
    # Two time points of four channels, and the channels in front, hold the four, too.
    for shape in ((3, 4, 5, 8), (4, 3, 4, 5)):
        write_nifti(tmp_path / "imagesTr" / "BRATS_001.nii.gz", np.ones(shape, np.int16))
        with pytest.raises(
            UserError, match=rf"has {shape[3]} channel\(s\), but .* names 4: .*time"
        ):
            source.load()
    for names in ({"0": "FLAIR", "1": "T1", "2": "T1w", "3": "T2"}, {"1": "FLAIR", "2": "T1"}):
        path.write_text(json.dumps(description | {"modality": names}))
        with pytest.raises(UserError, match=r"'t1' occurs twice|have the numbers 1, 2"):
            discover(msd_settings(tmp_path))


NNUNET_CHANNELS = {"0": "FLAIR", "1": "T1", "2": "T1ce", "3": "T2"}


@pytest.mark.parametrize(
    ("description", "ids"),
    [
        (
            {
                "modality": NNUNET_CHANNELS,
                "labels": {"0": "background", "1": "edema", "2": "NCR/NET", "3": "enhancing"},
                "training": [{"image": "./imagesTr/BraTS_1.nii.gz", "label": "x"}],
            },
            [0, 2, 1, 3],
        ),
        (
            {
                "channel_names": NNUNET_CHANNELS,
                "labels": {"background": 0, "necrosis": 1, "peritumoral oedema": 2, "ET": 3},
                "file_ending": ".nii.gz",
            },
            [0, 1, 2, 3],
        ),
        (
            {
                "channel_names": NNUNET_CHANNELS,
                "labels": {
                    "background": 0,
                    "whole tumor": [1, 2, 3],
                    "tumor core": [2, 3],
                    "enhancing tumor": [3],
                },
                "regions_class_order": [1, 2, 3],
            },
            [0, 2, 1, 3],
        ),
    ],
    ids=["v1", "v2", "v2 regions"],
)
def test_both_versions_of_nnunet(tmp_path, phantoms, description, ids):
    root = tmp_path / "Dataset137_BraTS"
    write_nnunet(root, "BraTS_1", phantoms[0], ids)
    (root / "dataset.json").write_text(json.dumps(description))
    (source,) = discover(DataSettings(layout="nnunet", root=tmp_path))
    case = source.load()
    assert case.case_id == "BraTS_1"
    np.testing.assert_array_equal(case.image, np.rint(phantoms[0][0]))
    np.testing.assert_array_equal(case.label, phantoms[0][1])


def test_nnunet_names_what_a_case_lacks(tmp_path, phantoms):
    for name in ("a", "b", "c"):
        write_nnunet(tmp_path, name, phantoms[0], [0, 1, 2, 3])
    description = {
        "channel_names": NNUNET_CHANNELS,
        "labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3},
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": ""} for n in "abd"],
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (tmp_path / "imagesTr" / "a_0002.nii.gz").unlink()
    (tmp_path / "labelsTr" / "b.nii.gz").unlink()
    sources = {s.case_id: s for s in discover(DataSettings(layout="nnunet", root=tmp_path))}
    assert sorted(sources) == ["a", "b", "c", "d"]
    for name, words in [("a", "a_0002"), ("b", "labelsTr.*b.nii.gz"), ("d", "d_0000")]:
        with pytest.raises(UserError, match=f"case {name} of .*lacks .*{words}"):
            sources[name].load()
    assert sources["c"].load().label.any()
    write_nnunet(tmp_path / "elsewhere", "c", phantoms[1], [0, 1, 2, 3])
    (tmp_path / "elsewhere" / "imagesTr").rename(tmp_path / "imagesTr" / "site")
    found = {s.case_id: s for s in discover(DataSettings(layout="nnunet", root=tmp_path))}["c"]
    with pytest.raises(UserError, match=r"c_000\d.nii.gz: is the same channel as .*c_000\d"):
        found.load()


def test_a_map_of_one_s_own_goes_before_the_names(tmp_path, phantoms):
    write_nnunet(tmp_path, "a", phantoms[0], [0, 1, 1, 1])
    description = {"channel_names": {"0": "FLAIR"}, "labels": {"background": 0, "lesion": 1}}
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    (source,) = discover(
        DataSettings(
            layout="nnunet",
            root=tmp_path,
            modalities=("flair",),
            classes="tumour",
            label_map={0: 0, 1: 1},
        )
    )
    case = source.load()
    assert case.classes == "tumour"
    np.testing.assert_array_equal(case.label, phantoms[0][1] > 0)


def test_a_list_of_images_a_single_channel_and_a_byte_order_mark(tmp_path, phantoms):
    """MONAI's lists name a file per channel; a data set of one channel has 3-D files."""
    write_nnunet(tmp_path, "a", phantoms[0], [0, 1, 2, 3])
    description = {
        "modality": {str(n): name for n, name in enumerate(MSD_ORDER)},
        "labels": {"0": "background", "1": "NCR", "2": "ED", "3": "ET"},
        "training": [
            {
                "image": [f"imagesTr/a_{n:04d}.nii.gz" for n in range(4)],
                "label": "labelsTr/a.nii.gz",
            }
        ],
    }
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(description), encoding="utf-8-sig")
    (source,) = discover(msd_settings(tmp_path, modalities=("t2", "flair")))
    case = source.load()
    assert case.case_id == "a"
    np.testing.assert_array_equal(case.image, np.rint(phantoms[0][0][..., [3, 0]]))
    np.testing.assert_array_equal(case.label, phantoms[0][1])
    entry = {"image": "imagesTr/a_0003.nii.gz", "label": "labelsTr/a.nii.gz"}
    path.write_text(json.dumps(description | {"modality": ["T2"], "training": [entry]}))
    (source,) = discover(msd_settings(tmp_path, modalities=("t2",)))
    np.testing.assert_array_equal(source.load().image[..., 0], np.rint(phantoms[0][0][..., 3]))


def test_nnunet_s_files_may_lie_where_dataset_json_says(tmp_path, phantoms):
    write_nnunet(tmp_path / "raw", "a", phantoms[0], [0, 1, 2, 3])
    entry = {
        "images": [f"../raw/imagesTr/a_{n:04d}.nii.gz" for n in range(4)],
        "label": "../raw/labelsTr/a.nii.gz",
    }
    labels = {"background": 0, "WT": [1, 2, 3], "TC": [1, 3], "ET": ["3"]}
    root = tmp_path / "Dataset001"
    root.mkdir()
    description = {"channel_names": NNUNET_CHANNELS, "labels": labels, "dataset": {"b": entry}}
    (root / "dataset.json").write_text(json.dumps(description))
    (source,) = discover(DataSettings(layout="nnunet", root=root))
    case = source.load()
    assert case.case_id == "b"
    np.testing.assert_array_equal(case.image, np.rint(phantoms[0][0]))
    np.testing.assert_array_equal(case.label, phantoms[0][1])
    (tmp_path / "raw" / "imagesTr" / "a_0001.nii.gz").unlink()
    with pytest.raises(UserError, match=r"case b of .* lacks .*a_0001.nii.gz"):
        discover(DataSettings(layout="nnunet", root=root))[0].load()


def test_dataset_json_as_other_programs_write_it(tmp_path, phantoms, monkeypatch):
    """UTF-16 and backslashes of Windows, variables as nnU-Net expands them, further names."""
    write_nnunet(tmp_path, "a", phantoms[0], [0, 1, 2, 3])
    monkeypatch.setenv("RAW", str(tmp_path))
    entry = {
        "images": [f"imagesTr\\a_{n:04d}.nii.gz" for n in range(4)],
        "label": "$RAW/labelsTr/a.nii.gz",
    }
    names = ("T2-FLAIR", "T1 pre-contrast", "MR_T1post", "T2-weighted")
    description = {
        "channel_names": dict(zip("0123", names, strict=True)),
        "labels": {"background": 0, "NCR": 1, "ED": 2, "ET": 3},
        "dataset": {"b": entry},
    }
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(description), encoding="utf-16")
    data = DataSettings(layout="nnunet", root=tmp_path)
    found = {source.case_id: source.load() for source in discover(data)}
    for case_id in ("a", "b"):
        np.testing.assert_array_equal(found[case_id].image, np.rint(phantoms[0][0]))
        np.testing.assert_array_equal(found[case_id].label, phantoms[0][1])
    path.write_text(json.dumps(description | {"dataset": [entry]}))
    with pytest.raises(UserError, match="`dataset` must hold the images and the label of each"):
        discover(data)


def test_a_run_knows_the_channels_of_its_data(tmp_path, phantoms):
    """What dataset.json said counts for scans that come without one, the data being gone."""
    names = {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
    labels = {"background": 0, "NCR": 1, "ED": 2, "ET": 3}
    write_nnunet(tmp_path / "data", "a", phantoms[0], [0, 1, 2, 3])
    (tmp_path / "data" / "dataset.json").write_text(
        json.dumps({"channel_names": names, "labels": labels})
    )
    data = DataSettings(layout="nnunet", root=tmp_path / "data")
    numbers = {"t1": 0, "t1ce": 1, "t2": 2, "flair": 3}
    assert named_channels(data) == numbers
    with pytest.raises(UserError, match=r"numbers the channels .* but data.channels is"):
        discover(data.model_copy(update={"channels": {"flair": 0}}))
    scans = tmp_path / "scans"
    (tmp_path / "data" / "imagesTr").rename(scans)
    stacked = np.stack([to_file_axes(np.rint(phantoms[0][0][..., c])) for c in range(4)], axis=-1)
    write_nifti(tmp_path / "stack" / "b.nii.gz", stacked.astype(np.int16))
    expected = np.rint(phantoms[0][0])[..., [3, 0, 1, 2]]
    gone = data.model_copy(update={"root": tmp_path / "gone"})
    knows = gone.model_copy(update={"channels": numbers})
    for folder in (scans, tmp_path / "stack"):
        case = find_inputs([folder], knows)[0].source.load()
        np.testing.assert_array_equal(case.image, expected)
        assert case.notes == []
        case = find_inputs([folder], gone)[0].source.load()
        np.testing.assert_array_equal(case.image, np.rint(phantoms[0][0]))
        (note,) = case.notes
        assert note.startswith("nothing says which channel is which: they were taken for flair, t1")
    image = nib.Nifti1Image(stacked.astype(np.int16), LPS)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][4] = 1.5
    nib.save(image, tmp_path / "stack" / "b.nii.gz")
    with pytest.raises(UserError, match=r"its 4 volumes are time points, 1.5 s apart"):
        find_inputs([tmp_path / "stack"], gone)[0].source.load()
