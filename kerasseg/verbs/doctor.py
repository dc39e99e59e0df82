"""`kerasseg doctor`: what this machine offers."""

from typing import TYPE_CHECKING

import typer

from kerasseg.verbs.options import ConfigOption, Overrides, experiment_of
from kerasseg.verbs.with_tensorflow import with_tensorflow

if TYPE_CHECKING:
    from kerasseg.forecast import Share


def doctor(overrides: Overrides = None, config: ConfigOption = None) -> None:
    """Say what this machine offers, and what is wrong with it.

    With --config also what a run takes: memory by estimate, time by a few measured batches.
    """
    experiment = experiment_of(config, overrides) if config or overrides else None

    def choose() -> "Share | None":
        from kerasseg.forecast import share_of_this_machine

        return share_of_this_machine(experiment) if experiment else None

    share = with_tensorflow(choose)
    from kerasseg.doctor import examine

    examine()
    if experiment and share:
        from kerasseg.forecast import forecast

        typer.echo(f"\nThis run: {config or 'the demo'}")
        forecast(experiment, share)
