"""The Keras loss: a weighted sum of the functions in `functional.py`, or of the user's own."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

import keras
from keras import ops
from pydantic import TypeAdapter

from kerasseg import anatomy
from kerasseg.config.base import Section, check_arguments, import_object
from kerasseg.config.loss import TERMS, ImportedTerm, LossTerm, OverlapTerm, term_name, term_weight
from kerasseg.losses import functional
from kerasseg.losses.activation import Activation, logits_of, probabilities


def loss_function(term: LossTerm) -> tuple[Callable[..., Any], bool, dict[str, Any]]:
    """Return the function of a term, whether it takes logits and their activation, its options.

    Raises:
        UserError: A function of the user cannot be imported, or does not take the options.
    """
    name, options = str(term_name(term)), term.model_dump()
    del options[name]
    if name in TERMS:
        function = getattr(functional, name)
    else:
        function = import_object("loss", name, "a function of masks and predictions")
    of_logits = "activation" in inspect.signature(function).parameters
    if name not in TERMS:
        given = ("masks", "logits", "activation") if of_logits else ("masks", "probabilities")
        check_arguments("loss", name, function, given, options)
    return function, of_logits, options


_TERM: TypeAdapter[LossTerm] = TypeAdapter(LossTerm)


@keras.saving.register_keras_serializable("kerasseg")
class SegmentationLoss(keras.losses.Loss):
    """A weighted sum of losses of masks y_true (B, ..., K) and predictions y_pred (B, ..., K).

    Masks are 0 and 1 of any type, one-hot with softmax. Masks and predictions are made float32
    before anything is summed, whatever the precision of the network. The result is one float32
    number. `sample_weight` (B,) weighs samples, so that the fillers of our validation batches,
    whose weight is 0, do not count in Keras's `fit`; weights of single voxels are refused.

    Examples:
        SegmentationLoss([{"dice": 0.5, "smooth": 2}, {"focal": 0.5}], activation="softmax")

    Args:
        terms: The terms of the sum as the setting `loss` has them (docs/losses.md), or one such
            term. `weights` and `alpha`, where given, have a number for each of the K channels.
        from_logits: Predictions are logits, not probabilities.
        activation: "sigmoid" for independent channels, "softmax" for exclusive ones.
        name: The name of the loss in Keras.

    Raises:
        ValueError: A term or the activation does not exist, or an option has a wrong value.
    """

    def __init__(
        self,
        terms: Mapping[str, Any] | LossTerm | Sequence[Mapping[str, Any] | LossTerm],
        from_logits: bool = False,
        activation: str = "sigmoid",
        name: str = "segmentation_loss",
    ) -> None:
        super().__init__(name=name, dtype="float32")
        if activation not in get_args(Activation):
            raise ValueError(f"activation: expected sigmoid or softmax, found {activation!r}")
        listed = [terms] if isinstance(terms, Mapping | Section) else terms
        if not listed:
            raise ValueError("terms: expected at least one such as {'dice': 1}, found none")
        self.terms = tuple(_TERM.validate_python(term) for term in listed)
        self.from_logits = from_logits
        self.activation: Any = activation

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        if sample_weight is None:
            return super().__call__(y_true, y_pred)
        sample_weight = ops.convert_to_tensor(sample_weight, "float32")
        found = tuple(sample_weight.shape)
        if any(size != 1 for size in found[1:]):
            raise ValueError(
                f"{self.name}: sample_weight: expected one number for each sample, of shape (B,), "
                f"found {found}; weights of classes are an option of the terms"
            )
        # Keras would multiply them with a loss that has no samples any more.
        return super().__call__((y_true, ops.reshape(sample_weight, (-1,))), y_pred)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, sample_weight = y_true if isinstance(y_true, tuple) else (y_true, None)
        _check_shapes(y_true, y_pred)
        total: Any = 0.0
        for term in self.terms:
            weight = term_weight(term)
            if weight == 0:
                continue
            function, of_logits, options = loss_function(term)
            weights: tuple[Any, ...] = (sample_weight,)
            if isinstance(term, ImportedTerm):
                if sample_weight is not None:
                    raise ValueError(f"{self.name}: {term_name(term)} takes no sample_weight")
                weights = ()
            if of_logits:
                logits = y_pred if self.from_logits else logits_of(y_pred, self.activation)
                value = function(y_true, logits, self.activation, *weights, **options)
            else:
                p = probabilities(y_pred, self.activation) if self.from_logits else y_pred
                value = function(y_true, p, *weights, **options)
            total += weight * value
        # Keras divides a loss by the number of replicas, unless it is a scalar already.
        return ops.reshape(total, (1,))

    def get_config(self) -> dict[str, Any]:
        return {
            "terms": [term.model_dump() for term in self.terms],
            "from_logits": self.from_logits,
            "activation": self.activation,
            "name": self.name,
        }


def build_loss(terms: Sequence[LossTerm], target: str) -> SegmentationLoss:
    """Return the loss of the setting `loss`, called as loss(masks (B, ..., K), logits (B, ..., K)).

    With target `labels` the background has the weight 0 in a mean over classes whose weights do not
    name it, and 1 - alpha in a focal loss with a single alpha.

    Args:
        terms: The terms of the setting.
        target: A row of `anatomy.TARGETS`.
    """
    channels, tumour = anatomy.TARGETS[target], anatomy.tumour_channels(target)
    if len(channels) > len(tumour):
        terms = [_with_background(term, tuple(channels), tumour) for term in terms]
    return SegmentationLoss(terms, True, anatomy.ACTIVATIONS[target], name="loss")


def _with_background(
    term: LossTerm, channels: tuple[str, ...], tumour: tuple[str, ...]
) -> LossTerm:
    """Return the term with one number per channel where it has one per channel of tumour."""
    if isinstance(term, OverlapTerm):
        weights = term.weights or (1.0,) * len(tumour)
        if len(weights) == len(tumour):
            of_tumour = dict(zip(tumour, weights, strict=True))
            weights = tuple(of_tumour.get(name, 0.0) for name in channels)
        return term.model_copy(update={"weights": weights})
    alpha = None if isinstance(term, ImportedTerm) else getattr(term, "alpha", None)
    if isinstance(alpha, float | int):
        per_channel = tuple(alpha if name in tumour else 1 - alpha for name in channels)
        return term.model_copy(update={"alpha": per_channel})
    return term


def _check_shapes(y_true: Any, y_pred: Any) -> None:
    """Raise ValueError where shapes differ; ops would silently compare one channel with all."""
    true, predicted = tuple(y_true.shape), tuple(y_pred.shape)
    alike = len(true) == len(predicted) and all(
        t is None or p is None or t == p for t, p in zip(true, predicted, strict=True)
    )
    if not alike:
        raise ValueError(f"y_true {true} and y_pred {predicted} must have the same shape")


class _FormerLoss(NamedTuple):
    """Reads a loss that a .keras file names by a class of an earlier version, such as `Dice`."""

    term: str

    def from_config(self, config: dict[str, Any]) -> SegmentationLoss:
        options = dict(config)
        kept = {key: options.pop(key) for key in ("from_logits", "activation", "name")}
        return SegmentationLoss([{self.term: 1.0, **options}], **kept)


class _FormerSum:
    """Reads the former class `WeightedSum`."""

    @staticmethod
    def from_config(config: dict[str, Any]) -> SegmentationLoss:
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        terms = []
        for loss, weight in zip(losses, config["weights"], strict=True):
            (term,) = loss.terms
            terms.append(term.model_copy(update={str(term_name(term)): weight}))
        first = losses[0]
        return SegmentationLoss(terms, first.from_logits, first.activation, config["name"])


def _read_former_classes() -> None:
    """Let Keras find the classes of earlier versions under the names that files hold."""
    known = keras.saving.get_custom_objects()
    known["kerasseg>WeightedSum"] = _FormerSum
    for name in TERMS:
        class_name = "".join(part.capitalize() for part in name.split("_"))
        known[f"kerasseg>{class_name}"] = _FormerLoss(name)


_read_former_classes()
