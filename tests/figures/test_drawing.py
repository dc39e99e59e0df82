import dataclasses

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.figure import Figure
from PIL import Image

from kerasseg import anatomy
from kerasseg.figures import style as drawing
from kerasseg.figures.runs import draw_training_curves
from kerasseg.figures.volumes import draw_overlay, draw_views, has_depth
from kerasseg.targets import label_to_masks, masks_to_label


def colours(path, name):
    """Number of pixels near the legend-free colour of a class laid over grey."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    hits = {
        "ET": (blue > red + 60) & (blue > green + 20),
        "ED": (red > blue + 60) & (green > blue + 40),
        "NCR": (red > green + 60) & (red > blue + 30),
    }
    hits["tumour"] = hits["TC"] = hits["NCR"]
    hits["WT"] = hits["ED"]
    return int(hits[name][: int(pixels.shape[0] * 0.9)].sum())


@pytest.fixture
def words(monkeypatch):
    """Every text of the figures that are saved, in order."""
    found = []
    save = Figure.savefig

    def watched(figure, *args, **kwargs):
        texts = [axes.get_title() for axes in figure.axes] + [figure.get_suptitle()]
        texts += [t.get_text() for legend in figure.legends for t in legend.get_texts()]
        found.append([text for text in texts if text])
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", watched)
    return found


LEGENDS = {
    "labels": ["NCR", "ED", "ET"],
    "subregions": ["NCR", "ED", "ET"],
    "regions": ["WT (holds TC)", "TC (holds ET)", "ET"],
    "binary": ["tumour"],
}


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
@pytest.mark.parametrize("target", LEGENDS)
def test_figures_show_truth_and_prediction(phantom_store, tmp_path, draw, target, words):
    """Every channel but the background, all of a case that is segmented rightly twice."""
    stored = phantom_store.load("phantom_0000")
    label = masks_to_label(label_to_masks(stored.case.label, target), target)
    draw(stored, label, target, "perfect", tmp_path / "both.png")
    draw(stored, label * 0, target, "nothing", tmp_path / "truth.png")
    assert [texts[-len(LEGENDS[target]) :] for texts in words] == [LEGENDS[target]] * 2
    for name in anatomy.tumour_channels(target):
        both, truth = colours(tmp_path / "both.png", name), colours(tmp_path / "truth.png", name)
        assert truth > 20, f"{name} is drawn in the truth"
        assert 1.6 < both / truth < 2.5, f"{name} is drawn in the prediction too"


@pytest.mark.parametrize("target", LEGENDS)
def test_each_voxel_has_the_colour_of_the_innermost_channel(target):
    """The four labels in a row: the background is left free, and regions hide what holds them."""
    panel = Figure().add_subplot()
    drawing.show_tumour(panel, np.array([[0, 1, 2, 3]], np.uint8), target)
    rgba = panel.get_images()[0].get_array()
    assert rgba[0, 0].tolist() == [0, 0, 0, 0]
    names = {"regions": ("TC", "WT", "ET"), "binary": ("tumour",) * 3}
    for voxel, name in enumerate(names.get(target, ("NCR", "ED", "ET")), start=1):
        assert rgba[0, voxel, :3].tolist() == list(colors.to_rgb(anatomy.COLOURS[name]))
        assert 0 < rgba[0, voxel, 3] < 1


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
def test_the_truth_of_a_binary_model_is_the_union(phantom_store, tmp_path, draw, words):
    """Drawn in one colour, as large as the union predicted; the legend names nothing else."""
    stored = phantom_store.load("phantom_0000")
    union = (stored.case.label > 0).astype(np.uint8)
    draw(stored, union, "binary", "perfect", tmp_path / "both.png")
    draw(stored, union * 0, "binary", "nothing", tmp_path / "truth.png")
    both, truth = (colours(tmp_path / f"{n}.png", "tumour") for n in ("both", "truth"))
    assert truth > 100 and 1.8 < both / truth < 2.2
    for name in ("ED", "ET"):
        assert colours(tmp_path / "both.png", name) == 0
    assert all(texts[-1] == "tumour" and "NCR" not in texts for texts in words)


def test_any_channel_has_its_title(phantom_store, tmp_path, words):
    stored = phantom_store.load("phantom_0000")
    names = ("flair", "adc", "t1ce", "grey")
    odd = dataclasses.replace(stored, case=dataclasses.replace(stored.case, modalities=names))
    draw_overlay(odd, stored.case.label, "subregions", "case 7", tmp_path / "overlay.png")
    assert words[0][:6] == ["FLAIR", "adc", "T1ce", "grey", "truth", "prediction"]
    assert "axial slice" in words[0][6] and words[0][7:] == ["NCR", "ED", "ET"]


def test_a_picture_has_no_slice_number(phantom_store, tmp_path, words):
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
    draw_overlay(picture, case.label, "binary", "slice_17.png", tmp_path / "overlay.png")
    assert words == [["grey", "truth", "prediction", "slice_17.png", "tumour"]]
    assert colours(tmp_path / "overlay.png", "tumour") > 100


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
def test_a_case_without_tumour_is_drawn(phantom_store, tmp_path, draw):
    stored = phantom_store.load("phantom_0007")
    draw(stored, np.zeros_like(stored.case.label), "subregions", "healthy", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 5000
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


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
def test_curves_of_every_channel(tmp_path, monkeypatch, target, channels, epochs):
    figures = []
    monkeypatch.setattr(
        "kerasseg.figures.runs.save",
        lambda figure, path: (figures.append(figure), drawing.save(figure, path)),
    )
    names = ("loss", "val_loss", "val_dice", *(f"val_dice_{name}" for name in channels))
    row = dict.fromkeys((*names, "learning_rate"), "0.5")
    history = [{**row, "epoch": str(i + 1)} for i in range(epochs)]
    draw_training_curves(history, 1, target, tmp_path / "curves.png")
    assert Image.open(tmp_path / "curves.png").size[0] > 1000
    shown = [text.get_text() for text in figures[0].axes[1].get_legend().get_texts()]
    mean = ["mean"] if len(channels) > 1 else []
    assert shown == [*channels, *mean, "best epoch 1"]


def test_the_slice_shown_is_that_with_most_truth(phantom_store, tmp_path, words):
    """False positives elsewhere must not hide what was to be found."""
    stored = phantom_store.load("phantom_0000")
    label = stored.case.label
    most = int((label > 0).sum(axis=(1, 2)).argmax())
    wrong = np.zeros_like(label)
    wrong[0] = 2
    draw_overlay(stored, wrong, "subregions", "case", tmp_path / "truth.png")
    empty = dataclasses.replace(stored, case=dataclasses.replace(stored.case, label=label * 0))
    draw_overlay(empty, wrong, "subregions", "case", tmp_path / "healthy.png")
    first = stored.offset[0]
    assert f"case, axial slice {most + first}" in words[0]
    assert f"case, axial slice {first}" in words[1]


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
