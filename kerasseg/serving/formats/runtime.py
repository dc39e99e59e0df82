"""`Runtime`: a written model, loaded again in the program that it was written for."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Runtime:
    """What a file is, as its own runtime sees it.

    name:          of the runtime, with its version
    predict:       patches (B, …, C) float32 -> probabilities (B, …, K) float32
    input, output: names of the tensors
    shape:         of the input; None where any size is taken
    advice:        what whoever runs it has to know; may be empty
    """

    name: str
    predict: Callable[[np.ndarray], np.ndarray]
    input: str
    output: str
    shape: tuple[int | None, ...]
    advice: str = ""
