"""Every use of a private name of Keras or KerasTuner, in one place.

Private names may move with any release of the library. Each hook says which version it was read
from and why it is needed; `tests/test_private_hooks.py` tests each of them against the installed
version and forbids private names anywhere else in the package.

KerasTuner is imported inside the functions that need it, because training needs none of it.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras


def loss_tracker(model: keras.Model) -> keras.metrics.Metric:
    """Return the metric that holds the mean loss of a compiled `model` (Keras 3.15).

    A training step of one's own must update the metric that `model.metrics` lists and resets.
    """
    return model._loss_tracker


def initial_epoch(model: keras.Model) -> int:
    """Return the epoch at which `keras.callbacks.BackupAndRestore` lets `model` begin (Keras 3.15).

    The callback tells it to nobody but `keras.Model.fit`, which is not called here. 0 if there is
    no such callback.
    """
    return getattr(model, "_initial_epoch", None) or 0


class ReducedGradientsOptimizer(keras.optimizers.Optimizer):
    """An optimiser whose gradients are the sum over all replicas already (Keras 3.15).

    Keras sums the gradients over the replicas inside `apply`. Here they are summed before it,
    because loss scaling and clipping must see the sum. Keras's own weight decay, which some
    optimisers have by default, is left out: `UpdateRules` has one rate for each variable.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: Any) -> Any:
        return grads_and_vars

    def _apply_weight_decay(self, variables: Any) -> None:
        pass

    def variable_index(self, variable: keras.Variable) -> int:
        """Return the position of `variable` in the list that the optimiser was built with."""
        return int(self._get_variable_index(variable))


@contextmanager
def downloads_of_applications(get_file: Callable[..., str]) -> Iterator[None]:
    """Let `keras.applications` call `get_file` for `keras.utils.get_file` (Keras 3.15).

    keras.applications keeps the names, addresses and hashes of its weight files to itself; so they
    can be seen when a file is asked for. Only for the time of the `with` block.
    """
    module: Any = sys.modules[keras.utils.get_file.__module__]  # keras.src.utils.file_utils
    original = module.get_file
    module.get_file = get_file
    try:
        yield
    finally:
        module.get_file = original


@contextmanager
def weights_without_values() -> Iterator[None]:
    """Let weights made in the block have a shape only: their number is wanted (Keras 3.15).

    `keras.StatelessScope` alone has Keras draw the values when it leaves its next scope.
    """
    state: Any = sys.modules["keras.src.backend.common.global_state"]
    waiting = list(state.get_global_attribute("uninitialized_variables", []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        state.set_global_attribute("uninitialized_variables", waiting)


class OracleHooks:
    """Names for the private parts of a KerasTuner oracle, to be mixed in before it.

    Read from KerasTuner 1.4.8, whose oracles cannot be stopped and continued without a loss
    unless this state is kept too.
    """

    def _save_trial(self, trial: Any) -> None:
        """Do not write each trial into a file of its own: `save` writes all of them."""
        self.save()  # type: ignore[attr-defined]

    # Bayesian search

    @property
    def random_state(self) -> Any:
        """The `numpy.random.RandomState` of a Bayesian oracle."""
        return self._random_state  # type: ignore[attr-defined]

    def draw_values(self) -> dict[str, Any]:
        """Return the answer of `populate_space` with values drawn at random."""
        return self._random_populate_space()  # type: ignore[attr-defined]

    # Hyperband

    def open_brackets(self) -> list[dict[str, Any]]:
        """Return the brackets of Hyperband that have rounds left, after dropping the others.

        Each is {"bracket_num": int, "rounds": [[{"past_id": ..., "id": ...}, ...], ...]}.
        """
        self._remove_completed_brackets()  # type: ignore[attr-defined]
        return self.brackets

    @property
    def brackets(self) -> list[dict[str, Any]]:
        """All brackets that Hyperband keeps."""
        return self._brackets  # type: ignore[attr-defined]

    def round_size(self, bracket: int, number: int) -> int:
        """Return how many trials the round `number` of a bracket of Hyperband has."""
        return int(self._get_size(bracket, number))  # type: ignore[attr-defined]

    def round_epochs(self, bracket: int, number: int) -> int:
        """Return after how many epochs the round `number` of a bracket ends."""
        return int(self._get_epochs(bracket, number))  # type: ignore[attr-defined]

    def round_counts(self) -> list[int]:
        """Return the number of rounds of each bracket of one iteration of Hyperband."""
        brackets = range(self._get_num_brackets())  # type: ignore[attr-defined]
        rounds = self._get_num_rounds  # type: ignore[attr-defined]
        return [int(rounds(bracket)) for bracket in brackets]
