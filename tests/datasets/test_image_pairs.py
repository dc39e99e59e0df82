import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasseg.config.data import DataSettings
from kerasseg.datasets.discovery import discover, knows_patients
from kerasseg.datasets.pictures import read_picture
from kerasseg.errors import UserError

RNG = np.random.default_rng(3)
PIXELS = RNG.integers(1, 255, (12, 16)).astype(np.uint8)
MASK = np.zeros((12, 16), np.uint8)
MASK[3:7, 5:12] = 255


def settings(root: Path, pairs: dict | None = None, **more) -> DataSettings:
    return DataSettings(layout="image_pairs", root=root, pairs=pairs or {}, **more)


def save(root: Path, name: str, pixels: np.ndarray, **options) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def pair(root: Path, name: str = "a", picture: str = "png", mask: str = "png") -> None:
    save(root, f"images/{name}.{picture}", PIXELS)
    save(root, f"masks/{name}.{mask}", MASK)


def load(root: Path, **more):
    (source,) = discover(settings(root, **more))
    return source.load()


@pytest.mark.parametrize("kind", ["png", "tif", "bmp", "PNG"])
def test_lossless_formats_give_the_pixels(tmp_path, kind):
    pair(tmp_path, picture=kind, mask="png")
    case = load(tmp_path)
    np.testing.assert_array_equal(case.image[0, ..., 0], PIXELS)
    np.testing.assert_array_equal(case.label[0], MASK > 0)
    assert case.image.shape == (1, 12, 16, 1) and case.modalities == ("grey",)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif"])
def test_a_note_that_turns_the_picture_is_followed_as_by_every_viewer(tmp_path, kind):
    """The picture is 16 x 12 as stored, and 12 x 16 as shown, as its mask is."""
    note = Image.Exif()
    note[274] = 6  # a quarter to the right
    lying = np.rot90(PIXELS // 128 * 200)
    how = {"compression": "tiff_lzw"} if kind == "tif" else {}
    save(tmp_path, f"images/a.{kind}", lying, exif=note, **how)
    save(tmp_path, "masks/a.png", MASK)
    found = load(tmp_path).image[0, ..., 0]
    assert np.corrcoef(found.ravel(), (PIXELS // 128).ravel())[0, 1] > 0.8
    with pytest.raises(UserError, match=r"b.tif: is stored on its side"):
        read_picture(save(tmp_path, "b.tif", lying, exif=note))


def test_a_suffix_one_folder_and_subfolders(tmp_path):
    save(tmp_path, "all/p1/x.png", PIXELS)
    save(tmp_path, "all/p1/x_mask.png", MASK)
    save(tmp_path, "all/p2/x.png", PIXELS)
    save(tmp_path, "all/p2/x_mask.png", MASK)
    pairs = {"images": "all", "masks": "all", "mask_suffix": "_mask"}
    found = discover(settings(tmp_path, pairs, patient_pattern=r"^(p\d)_"))
    assert [(s.case_id, s.patient_id) for s in found] == [("p1_x", "p1"), ("p2_x", "p2")]
    assert found[0].load().label.any()
    with pytest.raises(ValueError, match="are one folder: set"):
        settings(tmp_path, {"images": "all", "masks": "all"})


def test_rgb_and_grey(tmp_path):
    colour = RNG.integers(0, 255, (12, 16, 3)).astype(np.uint8)
    save(tmp_path, "images/a.png", colour)
    save(tmp_path, "masks/a.png", np.stack([MASK] * 3, axis=-1))
    luma = colour @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(load(tmp_path).image[0, ..., 0], luma, rtol=1e-5)
    two = load(tmp_path, modalities=("blue", "red"))
    np.testing.assert_array_equal(two.image[0], colour[..., [2, 0]])
    save(tmp_path, "images/a.png", PIXELS)
    three = load(tmp_path, modalities=("red", "green", "blue"))
    np.testing.assert_array_equal(three.image[0], np.stack([PIXELS] * 3, axis=-1))


def test_sixteen_bit_grey_is_kept_and_sixteen_bit_colour_refused(tmp_path):
    pair(tmp_path)
    deep = RNG.integers(0, 65535, (12, 16)).astype(np.uint16)
    path = save(tmp_path, "images/a.png", deep)
    np.testing.assert_array_equal(load(tmp_path).image[0, ..., 0], deep)
    # Pillow writes no 16-bit colour, so the bytes of a 1 x 1 PNG are put together here.
    path.write_bytes(sixteen_bit_rgb())
    with pytest.raises(UserError, match=r"a.png: is a colour picture of 16 bit a channel"):
        load(tmp_path)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_numbers_in_a_file_s_own_data_are_no_depth_of_colour(tmp_path, compression):
    """8-bit colour was refused as 16-bit where its place in the file had the digits 16."""
    for size in range(10, 400, 13):  # so that many places occur
        pixels = RNG.integers(0, 255, (size, 54, 3)).astype(np.uint8)
        path = save(tmp_path, "a.tif", pixels, compression=compression)
        np.testing.assert_array_equal(read_picture(path), pixels)
    path = save(tmp_path, "a.bmp", pixels)  # rows of 54 * 3 bytes take 164
    np.testing.assert_array_equal(read_picture(path), pixels)


def sixteen_bit_rgb() -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" + struct.pack(">HHH", 1, 2, 3))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_a_mask_of_nan_is_refused(tmp_path):
    save(tmp_path, "images/a.png", PIXELS)
    (tmp_path / "masks").mkdir()
    values = np.where(MASK > 0, np.nan, 0).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "masks" / "a.tif")
    with pytest.raises(UserError, match=r"a.tif: a mask must hold numbers, found NaN"):
        load(tmp_path)


def test_a_jpeg_mask_needs_a_threshold(tmp_path):
    save(tmp_path, "images/a.png", PIXELS)
    save(tmp_path, "masks/a.jpg", MASK, quality=60)
    with pytest.raises(UserError, match=r"a.jpg: a mask must hold 0 and one other.*threshold=128"):
        load(tmp_path)
    case = load(tmp_path, pairs={"threshold": 128})
    np.testing.assert_array_equal(case.label[0], MASK > 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: (r / "masks/a.png").unlink(),
            r"a.png: has no mask a in data.pairs.masks",
        ),
        (lambda r: (r / "images/a.png").unlink(), r"masks/a.png: is a mask without a picture"),
        (lambda r: save(r, "images/a.bmp", PIXELS), "have the same name: keep one"),
        (lambda r: save(r, "masks/a.png", MASK[:-1]), r"mask has \(11, 16\) pixels .* \(12, 16\)"),
        (
            lambda r: Image.fromarray(PIXELS).convert("P").save(r / "images/a.png"),
            "a.png: is a palette picture",
        ),
        (
            lambda r: Image.fromarray(MASK).convert("P").save(r / "masks/a.png"),
            "masks/a.png: is a palette picture",
        ),
        (
            lambda r: save(r, "masks/a.png", np.stack([MASK, MASK * 0, MASK], -1)),
            "is a coloured picture, expected a mask",
        ),
        (
            lambda r: save(r, "images/a.png", np.stack([PIXELS] * 3 + [PIXELS // 2], -1)),
            "has transparent pixels",
        ),
        (
            lambda r: (
                Image.fromarray(np.stack([PIXELS] * 4, -1), "CMYK").save(r / "images/a.tif")
                or (r / "images/a.png").unlink()
            ),
            "has the colour mode CMYK",
        ),
        (
            lambda r: (
                Image.fromarray(PIXELS).save(
                    r / "images/a.tif", save_all=True, append_images=[Image.fromarray(PIXELS)]
                )
                or (r / "images/a.png").unlink()
            ),
            "holds 2 pages",
        ),
        (lambda r: (r / "images/a.png").write_bytes(b"no"), "a.png: cannot be read as a picture"),
    ],
)
def test_refused_pairs_do_not_hide_the_others(tmp_path, change, words):
    pair(tmp_path)
    save(tmp_path, "images/b.png", PIXELS)
    save(tmp_path, "masks/b.png", MASK)
    change(tmp_path)
    bad, good = discover(settings(tmp_path))
    with pytest.raises(UserError, match=words):
        bad.load()
    assert good.load().label.any()


def test_one_name_in_two_unicode_forms_is_one_pair(tmp_path):
    name = "Grösse é 1"
    save(tmp_path, f"images/{unicodedata.normalize('NFD', name)}.png", PIXELS)
    save(tmp_path, f"masks/{unicodedata.normalize('NFC', name)}.png", MASK)
    assert load(tmp_path).label.any()


def test_pictures_without_a_masks_folder_are_for_prediction(tmp_path):
    save(tmp_path, "images/a.png", PIXELS)
    assert load(tmp_path).label is None
    with pytest.raises(UserError, match=r"data.pairs.images: .*pictures does not exist"):
        discover(settings(tmp_path, {"images": "pictures"}))


def test_patients_from_a_pattern_or_a_csv(tmp_path):
    for name in ("p1_s1", "p1_s2", "p2_s1"):
        pair(tmp_path, name)
    assert not knows_patients(settings(tmp_path))
    by_pattern = settings(tmp_path, patient_pattern=r"^(p\d+)_")
    assert knows_patients(by_pattern)
    assert [s.patient_id for s in discover(by_pattern)] == ["p1", "p1", "p2"]
    with pytest.raises(UserError, match=r"'\^\(q\)' finds no patient in the case name 'p1_s1'"):
        discover(settings(tmp_path, patient_pattern="^(q)"))
    table = tmp_path / "patients.csv"
    table.write_text("case_id,patient_id\np1_s1,anna\np1_s2,anna\np2_s1,ben\n")
    found = discover(settings(tmp_path, patient_csv=table))
    assert [s.patient_id for s in found] == ["anna", "anna", "ben"]
    table.write_text("case_id,patient_id\np1_s1,anna\n")
    with pytest.raises(UserError, match=r"has no row for 2 case\(s\), the first p1_s2"):
        discover(settings(tmp_path, patient_csv=table))
    table.write_text("case_id,patient_id\np1_s1, \np1_s2\np2_s1,ben\n")
    with pytest.raises(UserError, match=r"has no row for 2 case\(s\), the first p1_s1"):
        discover(settings(tmp_path, patient_csv=table))
    table.write_text("case_id,patient_id\np1_s1,anna\np1_s1,ben\n")
    with pytest.raises(UserError, match=r"csv, row 3: p1_s1 is of patient ben, but above of anna"):
        discover(settings(tmp_path, patient_csv=table))
    table.write_text("name,who\n")
    with pytest.raises(UserError, match="expected the columns case_id and patient_id"):
        discover(settings(tmp_path, patient_csv=table))
