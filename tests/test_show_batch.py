"""`kerasseg show-batch`: the patches of training, drawn."""

import numpy as np
import pytest
from matplotlib import colors
from PIL import Image

import kerasseg.show_batch
from kerasseg import anatomy
from kerasseg.show_batch import PatchPair, draw_patches, show_batch
from tests.conftest import phantom_experiment
from tests.program import run_program

SLICES = ["model.dimensions=2", "pipeline.patch_size=[8,16]"]


def drawn_pairs(monkeypatch, experiment, path, **options):
    """What `show_batch` hands to the drawing."""
    found = []

    def draw(pairs, *rest):
        found.append((pairs, rest))
        return draw_patches(pairs, *rest)

    monkeypatch.setattr(kerasseg.show_batch, "draw_patches", draw)
    show_batch(experiment, path, **options)
    return found[0]


@pytest.mark.parametrize(
    "two_d",
    [
        True,
        # The verb draws 3-D patches below, and test_cut mirrors them.
        pytest.param(False, marks=pytest.mark.all_only),
    ],
)
def test_both_are_the_same_patch(tmp_path, monkeypatch, two_d):
    """A mirrored patch is the mirror of the one as cut, which is what training would get."""
    more = [*SLICES, "pipeline.slices={neighbours: 1, keep: brain}"] if two_d else []
    mirrored = "augment.transforms=[{flip: {axes: [width], p: 1}}]"
    experiment = phantom_experiment(tmp_path, *more, mirrored)
    path = tmp_path / "show_batch.png"
    pairs, (modalities, _, title) = drawn_pairs(monkeypatch, experiment, path, examples=3, epoch=2)
    assert len(pairs) == 3 and "epoch 2, seed 0" in title and "transforms: flip" in title
    size = tuple(experiment.pipeline.patch_size)
    for pair in pairs:
        assert pair.image.shape == (*size, len(modalities))
        assert np.array_equal(pair.image[..., ::-1, :], pair.varied_image)
        assert np.array_equal(pair.masks[..., ::-1, :], pair.varied_masks)
        assert pair.case_id.startswith("phantom_")
    assert any(pair.masks.any() for pair in pairs)
    other, _ = drawn_pairs(monkeypatch, experiment, path, examples=3, epoch=2, seed=1)
    assert not np.array_equal(other[0].image, pairs[0].image)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and min(picture.size) > 300


def test_panels_and_outlines():
    """A ring around a core: the core's line lies on top; grey is that of the patch as cut."""
    image = np.zeros((5, 12, 10, 6), np.float16)
    image[:, 2:-1, 1:-2] = np.linspace(-1, 1, 7)[:, np.newaxis]
    masks = np.zeros((5, 12, 10, 3), np.uint8)
    masks[3, 4:9, 3:8, 2] = 1  # ET
    masks[3, 5:8, 4:7] = [1, 0, 0]  # NCR
    pair = PatchPair("case_a", image, masks, 2 * image[::-1], masks[::-1])
    names = ["flair", "t1", "t1ce", "t2", "dwi", "adc"]
    figure = draw_patches([pair, pair], names, "subregions", "a title")
    left, right = figure.subfigs
    assert [len(side.axes) for side in (left, right)] == [2 * 4, 2 * 4]
    assert left.axes[0].get_ylabel() == "case_a\nslice 3"
    assert right.axes[0].get_ylabel() == "slice 1"
    assert [axes.get_title() for axes in left.axes[:4]] == ["FLAIR", "T1", "T1ce", "T2"]
    lines = [tuple(c.get_edgecolor()[0][:3]) for c in left.axes[0].collections]
    assert lines == [colors.to_rgb(anatomy.COLOURS[name]) for name in ("ET", "NCR")]
    cut, varied = (side.axes[3].images[0].get_array() for side in (left, right))
    assert cut[0, 0] == varied[0, 0] == 0  # air is black
    assert not np.array_equal(cut, varied)  # twice as bright, which a scale of its own would hide
    assert figure.legends and figure.get_suptitle() == "a title"


def test_the_verb_says_where_it_wrote(tmp_path):
    experiment = phantom_experiment(tmp_path)  # for the overrides below, see conftest
    shape = "[" + ",".join(map(str, experiment.data.phantom.shape)) + "]"
    overrides = [
        f"data.phantom={{cases: 3, shape: {shape}}}",
        f"records.root={tmp_path / 'store'}",
        "records.workers=1",
        f"pipeline.patch_size={list(experiment.pipeline.patch_size)}",
        f"model.features={list(experiment.model.features)}",
        "augment.preset=light",
    ]
    command = ["-m", "kerasseg.cli", "show-batch", *overrides]
    command += ["--examples", "2", "--output", str(tmp_path / "out")]
    done = run_program(command)
    path = tmp_path / "out" / "show_batch.png"
    assert done.returncode == 0 and f"Look at {path}" in done.stdout, done.stderr
    with Image.open(path) as picture:
        assert picture.size[0] > 1000
