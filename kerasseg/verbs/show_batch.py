"""`kerasseg show-batch`: what augmentation does, drawn."""

from typing import Annotated

import typer

from kerasseg.verbs.options import (
    ConfigOption,
    OutputOption,
    Overrides,
    experiment_of,
    output_folder,
)
from kerasseg.verbs.with_tensorflow import with_tensorflow


def show_batch(
    overrides: Overrides = None,
    config: ConfigOption = None,
    examples: Annotated[int, typer.Option(min=1, max=64, help="Patches, a row each.")] = 6,
    epoch: Annotated[int, typer.Option(min=1, help="The epoch they are of.")] = 1,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Instead of run.seed.")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Draw training patches as they are cut and as they are augmented, with their labels."""
    experiment = experiment_of(config, overrides)
    with_tensorflow()
    from kerasseg.show_batch import show_batch as show_patches

    path = output_folder(experiment, output) / "show_batch.png"
    show_patches(experiment, path, examples=examples, epoch=epoch, seed=seed)
    typer.echo(f"Look at {path}")
