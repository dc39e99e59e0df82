"""The figures of training: truth and prediction over slices, and the curves."""

import dataclasses

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.figure import Figure
from PIL import Image

from kerasseg import anatomy
from kerasseg.figures.runs import draw_run_curves, draw_training_curves
from kerasseg.figures.style import RUN_COLOURS, save_figure, show_label
from kerasseg.figures.volumes import draw_overlay, draw_views, has_depth
from kerasseg.targets import label_to_masks, masks_to_label


def coloured_pixels(figure, name):
    """Number of pixels in a channel's colour, in each panel that has a label over its slice."""
    colour = colors.to_rgb(anatomy.COLOURS[name])
    labels = [axes.get_images()[1].get_array() for axes in figure.axes if len(axes.images) == 2]
    return [int((rgba[..., :3] == colour).all(axis=-1).sum()) for rgba in labels]


def texts(figure):
    """Titles of the panels, the figure's title and its legend."""
    found = [axes.get_title() for axes in figure.axes] + [figure.get_suptitle()]
    found += [t.get_text() for legend in figure.legends for t in legend.get_texts()]
    return [text for text in found if text]


LEGENDS = {
    "labels": ["NCR", "ED", "ET"],
    "subregions": ["NCR", "ED", "ET"],
    "regions": ["WT (holds TC)", "TC (holds ET)", "ET"],
    "binary": ["tumour"],
}


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
@pytest.mark.parametrize("target", LEGENDS)
def test_figures_show_truth_and_prediction(phantom_store, draw, target):
    """Every channel but the background is drawn in the truth and in a perfect prediction."""
    stored = phantom_store.load("phantom_0000")
    label = masks_to_label(label_to_masks(stored.case.label, target), target)
    perfect, empty = draw(stored, label, target, "perfect"), draw(stored, label * 0, target, "none")
    for figure in (perfect, empty):
        assert texts(figure)[-len(LEGENDS[target]) :] == LEGENDS[target]
    for name in anatomy.tumour_channels(target):
        truth, prediction = np.array(coloured_pixels(perfect, name)).reshape(2, -1)
        assert truth.all() and (truth == prediction).all(), name
        truth_alone, nothing = np.array(coloured_pixels(empty, name)).reshape(2, -1)
        assert (truth_alone == truth).all() and not nothing.any(), name


@pytest.mark.parametrize("target", LEGENDS)
def test_each_voxel_has_the_colour_of_the_innermost_channel(target):
    """The four labels in a row: the background is left free, and regions hide what holds them."""
    panel = Figure().add_subplot()
    show_label(panel, np.array([[0, 1, 2, 3]], np.uint8), target)
    rgba = panel.get_images()[0].get_array()
    assert rgba[0, 0].tolist() == [0, 0, 0, 0]
    names = {"regions": ("TC", "WT", "ET"), "binary": ("tumour",) * 3}
    for voxel, name in enumerate(names.get(target, ("NCR", "ED", "ET")), start=1):
        assert rgba[0, voxel, :3].tolist() == list(colors.to_rgb(anatomy.COLOURS[name]))
        assert 0 < rgba[0, voxel, 3] < 1


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
def test_the_truth_of_a_binary_model_is_the_union(phantom_store, draw):
    """It is drawn in one colour and as large as the union; the legend names nothing else."""
    stored = phantom_store.load("phantom_0000")
    union = (stored.case.label > 0).astype(np.uint8)
    figure = draw(stored, union, "binary", "perfect")
    truth, prediction = np.array(coloured_pixels(figure, "tumour")).reshape(2, -1)
    assert truth.all() and (truth == prediction).all()
    assert not any(coloured_pixels(figure, "ED") + coloured_pixels(figure, "ET"))
    assert texts(figure)[-1] == "tumour" and "NCR" not in texts(figure)


def test_any_channel_has_its_title(phantom_store):
    stored = phantom_store.load("phantom_0000")
    names = ("flair", "adc", "t1ce", "grey")
    odd = dataclasses.replace(stored, case=dataclasses.replace(stored.case, modalities=names))
    found = texts(draw_overlay(odd, stored.case.label, "subregions", "case 7"))
    assert found[:6] == ["FLAIR", "adc", "T1ce", "grey", "truth", "prediction"]
    assert "axial slice" in found[6] and found[7:] == ["NCR", "ED", "ET"]


def test_a_picture_has_no_slice_number(phantom_store):
    stored = phantom_store.load("phantom_0000")
    index = int((stored.case.label > 0).sum(axis=(1, 2)).argmax())
    flat = slice(index, index + 1)
    case = dataclasses.replace(
        stored.case,
        image=stored.case.image[flat, ..., :1],
        label=stored.case.label[flat],
        modalities=("grey",),
    )
    picture = dataclasses.replace(stored, case=case, offset=(0, 1, 2), full_shape=(1, 24, 22))
    figure = draw_overlay(picture, case.label, "binary", "slice_17.png")
    assert texts(figure) == ["grey", "truth", "prediction", "slice_17.png", "tumour"]
    assert all(coloured_pixels(figure, "tumour"))


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
def test_a_case_without_tumour_is_drawn_and_saved(phantom_store, tmp_path, draw):
    stored = phantom_store.load("phantom_0007")
    figure = draw(stored, np.zeros_like(stored.case.label), "subregions", "healthy")
    save_figure(figure, tmp_path / "x.png")
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]
    with Image.open(tmp_path / "x.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[1] > 800 and pixels.std() > 20
    # The legend lies below the panels, so the lowest row of pixels is white.
    assert (pixels[-1] == 255).all() and len(np.unique(pixels[-40:])) > 5


@pytest.mark.parametrize(
    ("target", "channels"),
    [
        ("labels", ("NCR", "ED", "ET")),
        ("subregions", ("NCR", "ED", "ET")),
        ("regions", ("WT", "TC", "ET")),
        ("binary", ("tumour",)),
    ],
)
@pytest.mark.parametrize("epochs", [1, 40])
def test_curves_of_every_channel(target, channels, epochs):
    names = ("loss", "val_loss", "val_dice", *(f"val_dice_{name}" for name in channels))
    row = dict.fromkeys((*names, "learning_rate"), "0.5")
    history = [{**row, "epoch": str(i + 1)} for i in range(epochs)]
    figure = draw_training_curves(history, 1, target)
    shown = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    mean = ["mean"] if len(channels) > 1 else []
    assert shown == [*channels, *mean, "best epoch 1"]
    # One epoch is a dot, because a line of one point cannot be seen.
    assert figure.axes[0].lines[0].get_marker() == ("o" if epochs == 1 else "None")
    figure.draw_without_rendering()


def test_curves_of_runs_have_the_colours_of_their_bars_and_none_is_drawn_twice():
    row = dict.fromkeys(("loss", "val_loss", "val_dice"), "0.5")
    rows = [{**row, "epoch": str(i + 1)} for i in range(40)]
    figure = draw_run_curves({"unet": rows, "unet, flips": rows, "old": [], "sam": rows[:2]})
    loss, score = figure.axes
    assert [text.get_text() for text in score.get_legend().get_texts()] == ["unet", "sam"]
    assert [line.get_color() for line in score.lines] == [RUN_COLOURS[0], RUN_COLOURS[3]]
    assert [line.get_linestyle() for line in loss.lines] == [":", "-", ":", "-"]
    assert [len(line.get_xdata()) for line in score.lines] == [40, 2]
    figure.draw_without_rendering()


def test_the_slice_shown_is_that_with_most_truth(phantom_store):
    """False positives elsewhere must not hide what was to be found."""
    stored = phantom_store.load("phantom_0000")
    label = stored.case.label
    most = int((label > 0).sum(axis=(1, 2)).argmax())
    wrong = np.zeros_like(label)
    wrong[0] = 2
    first = stored.offset[0]
    figure = draw_overlay(stored, wrong, "subregions", "case")
    assert f"case, axial slice {most + first}" in texts(figure)
    healthy = dataclasses.replace(stored, case=dataclasses.replace(stored.case, label=label * 0))
    figure = draw_overlay(healthy, wrong, "subregions", "case")
    assert f"case, axial slice {first}" in texts(figure)


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((155, 240, 240), (1, 1, 1), True),
        ((20, 240, 240), (1, 1, 1), False),
        ((20, 240, 240), (6, 1, 1), True),
        ((1, 4, 4), (1, 1, 1), False),
    ],
)
def test_three_planes_need_some_depth(phantom_store, shape, spacing, expected):
    stored = phantom_store.load("phantom_0000")
    case = dataclasses.replace(stored.case, spacing=spacing)
    assert has_depth(dataclasses.replace(stored, case=case, full_shape=shape)) is expected
