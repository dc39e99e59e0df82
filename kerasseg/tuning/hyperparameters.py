"""Parameters of a search <-> KerasTuner's hyperparameters."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from keras_tuner import HyperParameters

from kerasseg.tuning.parameter import Parameter, same


def hyperparameters(space: Sequence[Parameter]) -> HyperParameters:
    """KerasTuner's space. Where the values can be counted it is a choice of their numbers:
    KerasTuner has no choice of lists, nor of values of different types."""
    result = HyperParameters()
    by_name = {parameter.name: parameter for parameter in space}
    for parameter in space:
        with ExitStack() as stack:
            for name, values in parameter.when.items():
                coded = [_code(by_name[name], value) for value in values]
                stack.enter_context(result.conditional_scope(name, coded))
            _add(result, parameter)
    return result


def _add(result: HyperParameters, parameter: Parameter) -> None:
    name, sampling = parameter.name, "log" if parameter.log else "linear"
    if parameter.kind == "boolean":
        result.Boolean(name)
    elif parameter.finite is not None:
        result.Choice(name, list(range(len(parameter.finite))))
    elif parameter.kind == "int":
        result.Int(name, int(parameter.lowest), int(parameter.highest), sampling=sampling)
    else:
        result.Float(name, parameter.lowest, parameter.highest, sampling=sampling)


def _code(parameter: Parameter, value: Any) -> Any:
    if parameter.kind == "boolean" or parameter.finite is None:
        return value
    return next(i for i, other in enumerate(parameter.finite) if same(value, other))


def plain_values(space: Sequence[Parameter], values: Mapping[str, Any]) -> dict[str, Any]:
    """KerasTuner's values -> those of the settings, only the ones that are searched in this trial.

    A float has six digits of single precision: gRPC carries no more, and a trial must have the very
    same values on the worker that goes on with it as on the one that began it.
    """
    return {p.name: _plain(p, values[p.name]) for p in space if p.name in values}


def _plain(parameter: Parameter, value: Any) -> Any:
    if parameter.kind == "boolean":
        return bool(value)
    if parameter.finite is not None:
        return parameter.finite[int(value)]
    if parameter.kind == "int":
        return int(value)
    single = float(np.float32(value))
    return min(max(float(f"{single:.6g}"), float(parameter.lowest)), float(parameter.highest))
