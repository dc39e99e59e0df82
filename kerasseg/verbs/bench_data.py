"""`kerasseg bench data`: how fast the input pipeline is."""

from typing import Annotated

import typer

from kerasseg.verbs.options import ConfigOption, Overrides, experiment_of
from kerasseg.verbs.with_tensorflow import with_tensorflow


def bench_data(
    overrides: Overrides = None,
    config: ConfigOption = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0.1, help="How long the pipeline is run.")
    ] = 10.0,
) -> None:
    """Measure the input pipeline: patches a second, its slowest stage, what would help."""
    experiment = experiment_of(config, overrides)
    with_tensorflow()
    from kerasseg.bench_data import bench_data as measure

    measure(experiment, seconds)
