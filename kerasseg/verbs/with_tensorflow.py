"""Starting TensorFlow for a verb that needs it."""

import os
from collections.abc import Callable
from typing import TypeVar

from kerasseg.errors import UserError

Result = TypeVar("Result")


def with_tensorflow(prepare: Callable[[], Result] | None = None) -> Result | None:
    """Start TensorFlow, if Keras is to run on it at all; `prepare` comes before all else."""
    from kerasseg.start_tensorflow import start_tensorflow

    backend = os.environ["KERAS_BACKEND"]
    if backend != "tensorflow":
        raise UserError(
            f"KERAS_BACKEND={backend} is set in your environment, but kerasseg trains on "
            "TensorFlow: unset it, or set KERAS_BACKEND=tensorflow."
        )
    return start_tensorflow(prepare)
