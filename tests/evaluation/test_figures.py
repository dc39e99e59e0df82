import numpy as np
import pytest
from PIL import Image

from kerasseg.evaluation.figures.overlay import draw_overlay
from kerasseg.evaluation.figures.training_curves import draw_training_curves
from kerasseg.evaluation.figures.views import draw_views


def colours(path, name):
    """Number of pixels near the legend-free colour of a class laid over grey."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    hits = {
        "ET": (blue > red + 60) & (blue > green + 20),
        "ED": (red > blue + 60) & (green > blue + 40),
        "NCR": (red > green + 60) & (red > blue + 30),
    }
    return int(hits[name][: int(pixels.shape[0] * 0.9)].sum())


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
def test_figures_show_truth_and_prediction(phantom_store, tmp_path, draw):
    stored = phantom_store.load("phantom_0000")
    draw(stored, stored.case.label, "perfect", tmp_path / "both.png")
    draw(stored, stored.case.label * 0, "nothing found", tmp_path / "truth.png")
    for name in ("NCR", "ED", "ET"):
        both, truth = colours(tmp_path / "both.png", name), colours(tmp_path / "truth.png", name)
        assert truth > 20, f"{name} is drawn in the truth"
        assert 1.6 < both / truth < 2.5, f"{name} is drawn in the prediction too"


@pytest.mark.parametrize("draw", [draw_overlay, draw_views])
def test_a_case_without_tumour_is_drawn(phantom_store, tmp_path, draw):
    stored = phantom_store.load("phantom_0007")
    draw(stored, np.zeros_like(stored.case.label), "healthy", tmp_path / "healthy.png")
    assert (tmp_path / "healthy.png").stat().st_size > 5000
    assert [p.name for p in tmp_path.iterdir()] == ["healthy.png"]


def test_curves_of_one_epoch_and_of_many(tmp_path):
    names = ("loss", "val_loss", "val_dice", "val_dice_NCR", "val_dice_ED", "val_dice_ET")
    row = dict.fromkeys((*names, "learning_rate"), "0.5")
    for epochs in (1, 40):
        history = [{**row, "epoch": str(i + 1)} for i in range(epochs)]
        draw_training_curves(history, 1, tmp_path / "curves.png")
        assert Image.open(tmp_path / "curves.png").size[0] > 1000
