"""The campaign on 53 LGG patients: what makes the Dice of patients that nobody trained on better.

`python -m benchmarks lgg` compares recipes on fold 0 of docs/results/lgg_folds.csv, at about equal
processor time: epochs are chosen so that a run takes some 13 processor minutes on one core of an
AMD EPYC (`taskset -c 0 python -m benchmarks lgg`; several cores that wait for each other count as
processor time, too). Recipes are chosen by the validation patients of the fold alone. `--parts
fold0 fold1 fold2 fold3 fold4` predicts every patient out of fold. Parts sixth0 to sixth4 are five
networks that test on the same patients, and can be scored as one (docs/results.md).
benchmarks/campaign.py says how it is run, and `python -m benchmarks.campaign_figures` draws it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.campaign import Campaign, Recipe, folder_of_links, run_command
from benchmarks.lgg_folds import FOLDS, read_folds, sides_of, sides_of_sixth

SHARED = Path(__file__).parents[2] / "shared" / "data"
_COMMON = (
    "pipeline.patches_per_volume=16",
    "training.batch_size=8",
    "training.early_stopping_patience=null",
    "optimizer.warmup_epochs=1",
    "evaluation.overlays=0",
)
"""Few epochs: small batches give more steps for the same slices."""
_PRESET = "augment={preset: classic_2d}"
_UNET = (
    *_COMMON,
    "model={dimensions: 2, target: binary, features: [16,32,64,128], bottleneck: 256, norm: batch}",
    "optimizer.learning_rate=2e-3",
)


def _encoder(name: str, weights: str, epochs: int, *further: str) -> tuple[str, ...]:
    model = (
        "model={dimensions: 2, target: binary, network: pretrained_unet, norm: batch, "
        f"activation: relu, pretrained: {{encoder: {name}, weights: {weights}}}}}"
    )
    rate = "optimizer.learning_rate=1e-3"
    return (*_COMMON, model, rate, _PRESET, f"training.epochs={epochs}", *further)


def _lite(*further: str, epochs: int = 8) -> tuple[str, ...]:
    further = ("training.freeze_encoder_epochs=1", *further)
    return _encoder("efficientnetlite0", "imagenet", epochs, *further)


def _classic_2d(strength: float, *further: Mapping[str, object]) -> tuple[str, str]:
    """Return the settings of the preset classic_2d with its ranges times a strength, and more
    transforms after its own."""

    def factor(logarithm: float) -> list[float]:
        return [math.exp(-strength * logarithm), math.exp(strength * logarithm)]

    spatial = {
        "rotation": 20 * strength,
        "p_rotation": 0.8,
        "scale": factor(0.25),
        "p_scale": 0.8,
        "stretch": 0.08 * strength,
        "shift": 0.08 * strength,
        "elastic": 0.02 * strength,
        "p_elastic": 0.5,
    }
    transforms: list[Mapping[str, object]] = [
        {"flip": {"axes": ["width"]}},
        {"spatial": spatial},
        {"gamma": {"gamma": factor(0.35), "keep_moments": False, "p": 1.0}},
        {"scaling": {"factor": [1 - 0.2 * strength, 1 + 0.2 * strength], "p": 1.0}},
        {"brightness": {"add": 0.2 * strength, "p": 1.0}},
        {"gaussian_noise": {"variance": [0.0, 0.0225 * strength], "p": 0.3}},
        *further,
    ]
    return "augment.preset=none", f"augment.transforms={json.dumps(transforms)}"


_COPIES = (
    {"channel_copy": {"source": 1, "p": 0.1, "p_channel": 0.75}},
    {"channel_dropout": {"p": 0.05}},
)
"""As happens in the data: other sequences are FLAIR, which is channel 1, or are missing."""


_BIAS = {"bias_field": {"strength": 0.5, "p": 0.5}}
"""Brightness that varies over a slice, as near a coil."""


def _unet_copies(
    *further: str,
    epochs: int = 12,
    strength: float = 1.0,
    transforms: tuple[Mapping[str, object], ...] = _COPIES,
) -> tuple[str, ...]:
    augment = _classic_2d(strength, *transforms)
    return (*_UNET, *augment, f"training.epochs={epochs}", *further)


def _features(*features: int) -> tuple[str, str]:
    return f"model.features={list(features[:-1])}", f"model.bottleneck={features[-1]}"


_NARROW = _features(8, 16, 32, 64, 128)
RECIPES = (
    Recipe("unet", "plain U-Net, 1.9 M parameters", (*_UNET, _PRESET, "training.epochs=12")),
    Recipe("lite0", "EfficientNet-Lite0 pretrained on ImageNet", _lite()),
    Recipe(
        "lite0_flips", "Lite0, mirrored slices in test", ("evaluation.flips=[width]",), 128, "lite0"
    ),
    Recipe(
        "lite0_largest",
        "Lite0, largest component kept",
        ("postprocessing.keep_largest=[tumour]",),
        128,
        "lite0",
    ),
    Recipe(
        "v2s_random",
        "EfficientNetV2-S from random weights",
        _encoder("efficientnetv2s", "none", 3),
    ),
    Recipe(
        "lite0_copies",
        "Lite0, sequences replaced by copies of FLAIR or dropped in training",
        _lite(*_classic_2d(1.0, *_COPIES)),
    ),
    Recipe(
        "copies_flips",
        "copies, mirrored slices in test",
        ("evaluation.flips=[width]",),
        128,
        "lite0_copies",
    ),
    Recipe(
        "copies_tuned",
        "copies, post-processing chosen on the validation patients",
        ("--tuned",),
        128,
        "lite0_copies",
    ),
    Recipe(
        "copies_sam",
        "copies, the same, outlined by LiteMedSAM in its boxes",
        ("--tuned", "--sam"),
        128,
        "lite0_copies",
    ),
    Recipe(
        "unet_copies",
        "plain U-Net, trained with copies, too",
        _unet_copies(),
    ),
    Recipe(
        "unet_copies_tuned",
        "plain U-Net with copies, post-processing chosen on the validation patients",
        ("--tuned",),
        128,
        "unet_copies",
    ),
    Recipe(
        "unet_copies_sam",
        "plain U-Net with copies, the same, outlined by LiteMedSAM in its boxes",
        ("--tuned", "--sam"),
        128,
        "unet_copies",
    ),
    Recipe(
        "unet_copies_long",
        "plain U-Net with copies, three times as long",
        _unet_copies(epochs=36),
    ),
    Recipe(
        "unet_copies_long_tuned",
        "three times as long, post-processing chosen on the validation patients",
        ("--tuned",),
        128,
        "unet_copies_long",
    ),
    Recipe(
        "unet_copies_long_sam",
        "three times as long, the same, outlined by LiteMedSAM in its boxes",
        ("--tuned", "--sam"),
        128,
        "unet_copies_long",
    ),
    Recipe("unet_192", "U-Net with copies at 192 x 192", _unet_copies(epochs=5), size=192),
    Recipe("unet_256", "U-Net with copies at 256 x 256", _unet_copies(epochs=3), size=256),
    Recipe(
        "unet_by_area",
        "U-Net with copies, slices drawn by tumour area and a tenth uniform",
        _unet_copies("pipeline.slices.empty_share=null", "pipeline.class_shares={tumour: 0.9}"),
    ),
    Recipe(
        "unet_strong",
        "U-Net with copies, classic_2d 1.5 times as strong",
        _unet_copies(strength=1.5),
    ),
    Recipe(
        "unet_bias",
        "U-Net with copies, brightness that varies over the slice",
        _unet_copies(transforms=(_BIAS, *_COPIES)),
    ),
    Recipe(
        "unet_neighbours",
        "U-Net with copies, the slices above and below as further channels",
        _unet_copies("pipeline.slices.neighbours=1"),
    ),
    Recipe(
        "unet_no_ema",
        "U-Net with copies, weights not averaged",
        _unet_copies("optimizer.ema=null"),
    ),
    Recipe(
        "unet_focal",
        "U-Net with copies, Dice + focal loss",
        _unet_copies("loss=[{dice: 1.0}, {focal: 1.0, gamma: 2.0, alpha: 0.8}]"),
    ),
    Recipe(
        "unet_tversky",
        "U-Net with copies, Tversky loss",
        _unet_copies("loss=[{tversky: 1.0}]"),
    ),
    Recipe(
        "unet_narrow",
        "U-Net with copies, half as wide",
        _unet_copies(*_NARROW, epochs=28),
    ),
    Recipe(
        "unet_narrow_long",
        "half as wide, three times as long",
        _unet_copies(*_NARROW, epochs=84),
    ),
    Recipe(
        "unet_narrow_long_tuned",
        "half as wide and long, post-processing chosen on the validation patients",
        ("--tuned",),
        128,
        "unet_narrow_long",
    ),
    Recipe(
        "unet_narrow_long_flips",
        "half as wide and long, the same, and averaged with mirrored slices",
        ("--tuned", "evaluation.flips=[width]"),
        128,
        "unet_narrow_long",
    ),
    Recipe(
        "unet_narrow_long_sam",
        "half as wide and long, the same, outlined by LiteMedSAM in its boxes",
        ("--tuned", "--sam"),
        128,
        "unet_narrow_long",
    ),
    Recipe(
        "unet_two",
        "half as wide and long, averaged with the row of copies",
        run_of="unet_narrow_long",
        averaged_with="unet_copies",
    ),
    Recipe(
        "unet_narrow_long_bias",
        "half as wide and long, with brightness that varies over the slice",
        _unet_copies(*_NARROW, epochs=84, transforms=(_BIAS, *_COPIES)),
    ),
    Recipe(
        "unet_wide",
        "U-Net with copies, twice as wide",
        _unet_copies(*_features(32, 64, 128, 256, 512), epochs=4),
    ),
)
"""In the order of the table. Recipes called Lite0 differ from that row in what they say alone,
those called copies from the row of copies, and those called U-Net with copies from that row."""
PARTS = tuple(f"{kind}{fold}" for kind in ("fold", "sixth") for fold in range(FOLDS))
TITLE = "53 LGG patients, 128 x 128, Dice on the files' own 256 x 256 grid"


def sides(part: str) -> dict[str, str]:
    """Return the split of a fold, or of one of the five networks of an ensemble."""
    split = sides_of_sixth if part.startswith("sixth") else sides_of
    return split(read_folds(), int(part[-1]))


def make(roots: Sequence[Path], out: Path) -> Campaign:
    """Compare recipes on LGG patients; finished runs are kept, and stopped ones go on."""
    return Campaign("lgg_2d", folder_of_links(roots, out / "data"), out, RECIPES, sides)


def main(words: Sequence[str]) -> None:
    """Run the campaign."""
    roots = [SHARED / "lgg", SHARED / "lgg_35"]
    run_command(words, "lgg", TITLE, roots, PARTS, make, volumes=True)
