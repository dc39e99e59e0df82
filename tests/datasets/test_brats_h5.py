import h5py
import numpy as np
import pytest

from kerasseg.config.data import DataSettings
from kerasseg.datasets.discovery import discover
from kerasseg.errors import UserError
from tests.conftest import SHAPE, write_h5_volume


def settings(root, **more) -> DataSettings:
    return DataSettings(layout="brats_h5", root=root, h5_slices=SHAPE[0], **more)


def test_slices_become_the_volume_up_to_each_slice_s_scale(tmp_path, phantoms):
    write_h5_volume(tmp_path / "data", 12, phantoms[0])
    write_h5_volume(tmp_path / "data", 3, phantoms[1])
    sources = discover(settings(tmp_path))
    assert [s.case_id for s in sources] == ["volume_3", "volume_12"], "numeric order"
    case = sources[1].load()
    image, label = phantoms[0]
    np.testing.assert_array_equal(case.label, label)
    air = ~image.any(axis=-1)
    assert (case.image[air] == 0).all(), "background is exactly 0"
    for index in range(SHAPE[0]):
        for channel in range(4):
            raw, read = np.rint(image[index, ..., channel]), case.image[index, ..., channel]
            if raw.any():
                np.testing.assert_allclose(read * raw.std(), raw, rtol=1e-4, atol=1e-2)


def test_a_mark_in_the_corner_of_a_slice_does_not_hide_its_air(tmp_path, phantoms):
    write_h5_volume(tmp_path, 0, phantoms[0])
    (source,) = discover(settings(tmp_path))
    expected = source.load().image
    with h5py.File(tmp_path / "volume_0_slice_9.h5", "r+") as file:
        file["image"][0, 0] += 5
    expected[9, 0, 0] += 5
    case = source.load()
    np.testing.assert_allclose(case.image, expected, atol=1e-6)
    assert not case.notes


def test_channel_order_is_configurable(tmp_path, phantoms):
    write_h5_volume(tmp_path, 0, phantoms[0])
    plain = discover(settings(tmp_path))[0].load()
    turned = discover(
        settings(
            tmp_path,
            h5_image_channels=("t2", "t1ce", "t1", "flair"),
            h5_mask_channels=("ET", "ED", "NCR"),
        )
    )[0].load()
    np.testing.assert_array_equal(turned.image, plain.image[..., ::-1])
    swapped = np.array([0, 3, 2, 1], np.uint8)[plain.label]
    np.testing.assert_array_equal(turned.label, swapped)


def rewrite(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values


def test_refused_files(tmp_path, phantoms):
    write_h5_volume(tmp_path, 0, phantoms[0])
    (source,) = discover(settings(tmp_path))
    path = tmp_path / "volume_0_slice_4.h5"
    whole = path.read_bytes()
    image = np.zeros((SHAPE[2], SHAPE[1], 4))
    mask = np.zeros((SHAPE[2], SHAPE[1], 3), np.uint8)
    both = mask.copy()
    both[2, 3, :2] = 1
    for datasets, words in [
        ({"mask": mask}, r"no dataset 'image', found \['mask'\]"),
        ({"image": image[..., :3], "mask": mask}, r"expected \(x, y, 4\)"),
        ({"image": image, "mask": mask[..., :2]}, "'mask' has shape"),
        ({"image": image, "mask": mask + 2}, "must hold 0 and 1"),
        ({"image": image, "mask": both}, "belong to several"),
        ({"image": image}, "no dataset 'mask', while other slices"),
        ({"image": image[1:], "mask": mask[1:]}, "not of one volume"),
    ]:
        rewrite(path, **datasets)
        with pytest.raises(UserError, match=words):
            source.load()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"slice_4.h5: cannot be read as HDF5"):
        source.load()


def test_missing_slices_are_named(tmp_path, phantoms):
    write_h5_volume(tmp_path, 7, phantoms[0])
    for index in (3, 4, 9):
        (tmp_path / f"volume_7_slice_{index}.h5").unlink()
    write_h5_volume(tmp_path, 8, phantoms[1])
    bad, good = discover(settings(tmp_path))
    with pytest.raises(UserError, match=r"volume_7 lacks slice\(s\) 3-4, 9 of 0-17"):
        bad.load()
    assert good.load().label.any(), "one bad case does not hide the others"


def test_surplus_and_doubled_slices_are_named(tmp_path, phantoms):
    write_h5_volume(tmp_path / "a", 7, phantoms[0])
    (tmp_path / "a" / "volume_7_slice_0.h5").rename(tmp_path / "a" / "volume_7_slice_18.h5")
    (bad,) = discover(settings(tmp_path))
    with pytest.raises(UserError, match=r"lacks slice\(s\) 0 and has unexpected slice\(s\) 18 of"):
        bad.load()
    write_h5_volume(tmp_path / "b", 7, phantoms[0])
    (bad,) = discover(settings(tmp_path))
    with pytest.raises(UserError, match="are the same slice: keep one"):
        bad.load()


def test_another_layout_that_fits_is_named(tmp_path, phantoms):
    write_h5_volume(tmp_path, 7, phantoms[0])
    with pytest.raises(UserError, match=r"set data\.layout=brats_h5"):
        discover(DataSettings(layout="brats_nifti", root=tmp_path))
