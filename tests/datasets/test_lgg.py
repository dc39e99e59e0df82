from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasseg.config.data import DataSettings
from kerasseg.datasets.checks import findings_of, read_case
from kerasseg.datasets.discovery import discover
from kerasseg.errors import UserError

PATIENT = "TCGA_CS_4941"
SCAN = f"{PATIENT}_19960909"


def write_scan(root: Path, scan: str, slices: int = 12) -> np.ndarray:
    """Slices 1..N whose red channel is their number; returns the masks (D, H, W)."""
    folder = root / "kaggle_3m" / scan
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(scan))
    masks = np.zeros((slices, 14, 10), np.uint8)
    masks[3:6, 4:8, 2:7] = 1
    for index in range(slices):
        pixels = rng.integers(1, 255, (14, 10, 3)).astype(np.uint8)
        pixels[..., 0] = index + 1
        pixels[masks[index] > 0, 1] |= 192  # tumour is bright in FLAIR
        Image.fromarray(pixels).save(folder / f"{scan}_{index + 1}.tif")
        Image.fromarray(masks[index] * 255).save(folder / f"{scan}_{index + 1}_mask.tif")
    return masks


def settings(root: Path, **more) -> DataSettings:
    return DataSettings(layout="lgg", root=root, **more)


def test_slices_stand_in_numeric_order_with_the_patient_s_attributes(tmp_path):
    masks = write_scan(tmp_path, SCAN)
    (tmp_path / "kaggle_3m" / "data.csv").write_text(
        f"Patient,gender,age,empty\n{PATIENT},2,67,,\nTCGA_XX_0000,1,9,\n"
    )
    (source,) = discover(settings(tmp_path))
    case = source.load()
    assert (case.case_id, case.patient_id) == (SCAN, PATIENT)
    assert case.modalities == ("t1", "flair", "t1ce") and case.classes == "tumour"
    np.testing.assert_array_equal(case.image[:, 0, 0, 0], np.arange(1, 13))
    np.testing.assert_array_equal(case.label, masks)
    assert case.attributes == {"gender": "2", "age": "67"}
    flair = discover(settings(tmp_path, modalities=("flair",)))[0].load()
    np.testing.assert_array_equal(flair.image[..., 0], case.image[..., 1])


def test_a_patient_without_any_mask_is_a_case_without_truth(tmp_path):
    write_scan(tmp_path, SCAN)
    for path in tmp_path.rglob("*_mask.tif"):
        path.unlink()
    (source,) = discover(settings(tmp_path))
    assert source.load().label is None


def picture(folder: Path, name: str, pixels: np.ndarray) -> None:
    Image.fromarray(pixels.astype(np.uint8)).save(folder / name)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: (f / f"{SCAN}_5.tif").unlink(), r"lacks slice\(s\) 5 of 1-12"),
        (lambda f: (f / f"{SCAN}_12.tif").unlink(), r"masks without a picture for slice\(s\) 12"),
        (lambda f: (f / f"{SCAN}_4_mask.tif").unlink(), r"pictures without a mask .* 4"),
        (lambda f: picture(f, f"{SCAN}_03.tif", np.ones((14, 10, 3))), "has a slice twice"),
        (
            lambda f: picture(f, f"{SCAN}_4_mask.tif", np.full((14, 10), 7)),
            r"_4_mask.tif: a mask of this data set holds 0 and 255, found also 7",
        ),
        (
            lambda f: picture(f, f"{SCAN}_4_mask.tif", np.zeros((14, 9))),
            r"_4_mask.tif: the mask has \(14, 9\) pixels .* \(14, 10\)",
        ),
        (
            lambda f: picture(f, f"{SCAN}_4.tif", np.ones((14, 10))),
            r"_4.tif: has shape \(14, 10, 1\) .* expected \(14, 10, 3\)",
        ),
        (lambda f: (f / f"{SCAN}_4.tif").write_bytes(b"II*"), "_4.tif: cannot be read as a pic"),
    ],
)
def test_refused_patients_do_not_hide_the_others(tmp_path, damage, words):
    write_scan(tmp_path, SCAN)
    write_scan(tmp_path, "TCGA_DU_5851_19950428")
    damage(tmp_path / "kaggle_3m" / SCAN)
    bad, good = discover(settings(tmp_path))
    with pytest.raises(UserError, match=words):
        bad.load()
    assert good.load().label.any()


def test_a_sequence_that_is_flair_once_more_is_said(tmp_path):
    """In some patients FLAIR stands for the sequence that was not taken, as it is or stretched."""
    for scan, change in (
        (SCAN, lambda pixels: pixels),
        ("TCGA_DU_5851_19950428", lambda pixels: np.stack([pixels[..., 1]] * 3, axis=-1)),
        ("TCGA_DU_5852_19950709", lambda p: np.dstack([p[..., 0], p[..., 1], p[..., 1] // 2 + 9])),
    ):
        write_scan(tmp_path, scan)
        for path in (tmp_path / "kaggle_3m" / scan).glob("*[0-9].tif"):
            Image.fromarray(change(np.asarray(Image.open(path)))).save(path)
    own, every, one = (
        read_case(source, settings(tmp_path)) for source in discover(settings(tmp_path))
    )
    assert own.notes == []
    assert {note.split(":")[0] for note in every.notes} == {
        "t1 is a copy of flair",
        "t1ce is a copy of flair",
    }
    assert [note.split(":")[0] for note in one.notes] == ["t1ce is a copy of flair"]
    found = list(findings_of(discover(settings(tmp_path))[2].load()))
    assert [(f.severity, f.check) for f in found] == [("warning", "copied modality")]
