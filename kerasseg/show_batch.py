"""`kerasseg show-batch`: what augmentation makes of the patches that training sees."""

from pathlib import Path

import numpy as np

from kerasseg.config.augment import AugmentSettings
from kerasseg.config.experiment import Experiment
from kerasseg.figures.patches import PatchPair, draw_patches
from kerasseg.figures.style import save
from kerasseg.pipeline.augment.presets import transforms_of
from kerasseg.pipeline.batches import TrainingBatches
from kerasseg.records.splits import open_split
from kerasseg.records.store import open_store


def show_batch(
    experiment: Experiment,
    path: Path,
    *,
    examples: int = 6,
    epoch: int = 1,
    seed: int | None = None,
) -> None:
    """Draw the first `examples` training patches of `epoch`, counted from 1, into the PNG `path`.

    They are those of a run with `seed` (`run.seed` without one), cut in the same places with and
    without augmentation. Converts the scans if needed. Raises `UserError` where it or the drawing
    cannot be written.
    """
    seed = experiment.run.seed if seed is None else seed
    pairs = _pairs(experiment, examples, epoch, seed)
    title = (
        f"{experiment.run.name}: training patches of epoch {epoch}, seed {seed}. "
        f"{_words(experiment.augment)}"
    )
    target = experiment.model.target
    save(draw_patches(pairs, experiment.data.modalities, target, title), path, "--output")


def _pairs(experiment: Experiment, examples: int, epoch: int, seed: int) -> list[PatchPair]:
    store = open_store(experiment)
    split = open_split(store, experiment.split)
    transforms = transforms_of(experiment.augment)
    plain, varied = (
        TrainingBatches(
            store,
            split.train,
            experiment.pipeline,
            target=experiment.model.target,
            batch_size=experiment.training.batch_size,
            seed=seed,
            steps_per_epoch=experiment.training.steps_per_epoch,
            steps_multiple=experiment.training.gradient_accumulation,
            transforms=chosen,
        )
        for chosen in ((), transforms)
    )
    steps = -(-examples // plain.batch_size)
    names = [
        name
        for step in range(steps)
        for name in plain.batch_case_ids(
            epoch - 1 + step // plain.steps_per_epoch, step % plain.steps_per_epoch
        )
    ]
    patches = [
        batches.dataset(epoch - 1).unbatch().take(examples).as_numpy_iterator()
        for batches in (plain, varied)
    ]
    # Of neighbouring slices the middle one.
    modalities = len(experiment.data.modalities)
    first = modalities * experiment.pipeline.slices.neighbours
    middle = np.s_[..., first : first + modalities]
    return [
        PatchPair(name, image[middle], masks, varied_image[middle], varied_masks)
        for name, (image, masks), (varied_image, varied_masks) in zip(names, *patches, strict=False)
    ]


def _words(settings: AugmentSettings) -> str:
    """What augments."""
    own = ", ".join(
        name for term in settings.transforms or () for name, value in term if value is not None
    )
    parts = [
        f"augment.preset={settings.preset}" if settings.preset != "none" else "",
        f"transforms: {own}" if own else "",
        "Albumentations: " + ", ".join(name for term in settings.albumentations for name in term)
        if settings.albumentations
        else "",
    ]
    return "; ".join(filter(None, parts)) or "No augmentation: augment.preset=none"
