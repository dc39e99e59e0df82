"""The campaign on 200 pictures: pretrained or not, and what neighbours on both sides are worth.

The numbers of the pictures run along the slices of a patient, and nothing says where a patient
ends. Part block0 to block4 tests on a fifth of the numbering, so that neighbours stay together but
for the two at its ends; random0 to random4 tests on a fifth drawn at random, with neighbours of
most pictures in training. `python -m benchmarks pairs --parts block0 random0` runs one of each.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from benchmarks.campaign import Campaign, Recipe, run_command
from benchmarks.lgg import SHARED
from benchmarks.lgg_folds import FOLDS

CHOOSING = 20
"""Pictures that choose the epoch."""
_COMMON = (
    "pipeline.patches_per_volume=1",
    "training.batch_size=8",
    "training.early_stopping_patience=null",
    "evaluation.overlays=0",
    "loss=[{dice: 1.0}, {cross_entropy: 1.0}]",
    "optimizer={name: adamw, learning_rate: 1e-3, warmup_epochs: 1, ema: 0.99}",
)


def _lite(weights: str) -> tuple[str, ...]:
    return (
        *_COMMON,
        "model={dimensions: 2, target: binary, network: pretrained_unet, norm: batch, activation: "
        f"relu, pretrained: {{encoder: efficientnetlite0, weights: {weights}}}}}",
        f"training.freeze_encoder_epochs={int(weights != 'none')}",
        "training.epochs=14",
    )


RECIPES = (
    Recipe(
        "unet",
        "plain U-Net, 1.9 M parameters",
        (
            *_COMMON,
            "model={dimensions: 2, target: binary, features: [16,32,64,128], bottleneck: 256, "
            "norm: batch}",
            "optimizer.learning_rate=2e-3",
            "training.epochs=20",
        ),
    ),
    Recipe("lite0", "EfficientNet-Lite0 pretrained on ImageNet", _lite("imagenet")),
    Recipe("lite0_random", "EfficientNet-Lite0 from random weights", _lite("none")),
)
PARTS = tuple(f"{kind}{fold}" for kind in ("block", "random") for fold in range(FOLDS))
TITLE = "200 pictures, 128 x 128, Dice on the files' own grid"


def sides_of_part(names: Sequence[str], part: str) -> dict[str, str]:
    """Return the split of a part.

    Args:
        names: The pictures' names, which are numbers.
        part: Its name; the pictures that choose are the first of the block after the next one.
    """
    order = sorted(names, key=int)
    if part.startswith("random"):
        random.Random(0).shuffle(order)
    fold = int(part[-1])
    edges = [i * len(order) // FOLDS for i in range(FOLDS + 1)]
    first = edges[(fold + 2) % FOLDS]
    testing = order[edges[fold] : edges[fold + 1]]
    choosing = order[first : first + CHOOSING]
    return {
        name: "test" if name in testing else "validation" if name in choosing else "train"
        for name in sorted(names)
    }


def make(roots: Sequence[Path], out: Path) -> Campaign:
    """Compare recipes on pictures; finished runs are kept, and stopped ones go on."""
    names = [path.stem for path in (roots[0] / "images").iterdir()]
    return Campaign("pairs_2d", roots[0], out, RECIPES, lambda part: sides_of_part(names, part))


def main(words: Sequence[str]) -> None:
    """Run the campaign."""
    run_command(words, "pairs", TITLE, [SHARED / "image_pairs"], PARTS, make, volumes=False)
