"""What a config may say of Albumentations: every mistake is a line before any training."""

import subprocess
import sys
from pathlib import Path

import pytest

from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.slice_transforms import import_albumentations

SLICES = ["model.dimensions=2", "pipeline.patch_size=[16,24]", "model.features=[4,8]"]


def load(value, *more):
    return load_experiment(None, [*SLICES, f"augment.albumentations={value}", *more])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[{HorisontalFlip: {}}]", "no transform HorisontalFlip; the nearest is HorizontalFlip"),
        ("[{horizontal_flip: {}}]", "the nearest is HorizontalFlip"),
        ("[{ElasticTransform: {alfa: 4}}]", r"no argument alfa. Did you mean alpha\? Known: al"),
        ("[{ElasticTransform: {alpha: much}}]", "ElasticTransform: alpha 'much': should be"),
        ("[{GaussNoise: {std_range: [0.5, 3]}}]", "GaussNoise: std_range: All values"),
        ("[{RandomCrop: {height: 9}}]", "RandomCrop: width: Field required"),
        ("[{HorizontalFlip: {p: 1.5}}]", "p 1.5 must be a number from 0 to 1"),
        ("[{HorizontalFlip: {p: true}}]", "p True must be a number"),
        ("[{Affine: {mask_interpolation: 1}}]", "mask_interpolation must be 0"),
        ("[{Affine: {fill_mask: 2}}]", "fill_mask must be 0"),
        ("[{PixelDropout: {mask_drop_value: 2}}]", "puts the label 2"),
        ("[{RandomResizedCrop: {size: [16, 16]}}]", r"makes \[16, 16\] of a patch of \[16, 24\]"),
        ("[{RandomRotate90: {}}]", r"makes \[24, 16\] of a patch of \[16, 24\]"),
        ("[{ISONoise: {}}]", "ISONoise cannot be used: it takes the channels for red"),
        ("[{Normalize: {}}]", "z-scores"),
        ("[{OneOf: {}}]", "a list within the list"),
        ("[{CLAHE: {}}]", "one channel, but these have 4"),
        ("[{CoarseDropout: {fill: inpaint_ns}}]", "raises ValueError: Inpainting"),
        ("[{Blur: {}, Rotate: {}}]", "each entry of augment.albumentations names one"),
        ("[{}]", "names one transform, found none"),
        ("[HorizontalFlip]", "albumentations.0: found"),
        ("[{HorizontalFlip: 3}]", "albumentations.0.HorizontalFlip: found 3"),
    ],
)
def test_a_mistake_is_named(value, words):
    pytest.importorskip("albumentations")
    with pytest.raises(UserError, match=words):
        load(value)


def test_it_goes_with_a_preset_and_with_transforms():
    pytest.importorskip("albumentations")
    value = "[{RandomResizedCrop: {size: [16, 24], scale: [0.7, 1]}}]"
    assert load(value, "augment.preset=classic_2d").augment.albumentations
    assert load(value, "augment.transforms=[{blur: {}}]").augment.albumentations


def test_neither_volumes_nor_a_machine_without_it(monkeypatch):
    with pytest.raises(UserError, match=r"augment.albumentations is for model.dimensions=2"):
        load_experiment(None, ["augment.albumentations=[{Blur: {}}]"])
    monkeypatch.setitem(sys.modules, "albumentations", None)
    import_albumentations.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'kerasseg\[albumentations\]'"):
        load("[{Blur: {blur_limit: 5}}]")
    load("[]")


def test_it_is_imported_only_when_named_and_without_asking_the_network():
    """And leaves OpenCV one thread, of which tf.data has several."""
    pytest.importorskip("albumentations")
    program = (
        "import os, sys\nfrom kerasseg.config.load import load_experiment\n"
        f"load_experiment(None, {SLICES})\nassert 'albumentations' not in sys.modules\n"
        f"load_experiment(None, [*{SLICES}, 'augment.albumentations=[{{Blur: {{}}}}]'])\n"
        "assert os.environ['NO_ALBUMENTATIONS_UPDATE'] == '1'\nimport cv2\n"
        "assert cv2.getNumThreads() == 1 and 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])
