"""Section `loss`: the terms of a weighted sum, `[{dice: 0.5}, {focal: 0.5, gamma: 2}]`."""

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag, model_validator

from kerasseg import anatomy
from kerasseg.config.base import Section, is_import_path, setting

Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class OverlapTerm(Section):
    """The options that losses share which are a mean over classes."""

    weights: tuple[Weight, ...] | None = setting(
        None,
        "Weights of the target's channels in the mean over classes; null: equal. Of target=labels "
        "either four, the first for the background, or three without it; null leaves it out.",
        min_length=1,
    )
    smooth: float = setting(1.0, "Added to numerator and denominator.", unit="voxels", gt=0.0)
    reduction: Literal["batch", "sample"] = setting(
        "batch", "Sums over the whole batch together, or over each sample and then their mean."
    )


class DiceTerm(OverlapTerm):
    """Soft Dice (Milletari et al. 2016, arXiv:1606.04797)."""

    dice: Weight = setting(..., "Weight of this term in the sum.")
    squared: bool = setting(False, "Squares in the denominator, as in the paper.")


class GeneralisedDiceTerm(Section):
    """Generalised Dice (Sudre et al. 2017, arXiv:1707.03237), the background included."""

    generalised_dice: Weight = setting(..., "Weight of this term in the sum.")
    smooth: float = setting(
        1.0,
        "Added to numerator and denominator, in voxels of the rarest class present.",
        unit="voxels",
        gt=0.0,
    )
    reduction: Literal["batch", "sample"] = setting("batch", "As in dice.")


class JaccardTerm(OverlapTerm):
    """Soft Jaccard (Rahman and Wang 2016)."""

    jaccard: Weight = setting(..., "Weight of this term in the sum.")


class TverskyTerm(OverlapTerm):
    """Tversky (Salehi et al. 2017, arXiv:1706.05721)."""

    tversky: Weight = setting(..., "Weight of this term in the sum.")
    alpha: float = setting(0.3, "Cost of false positives.", gt=0.0, le=10.0)
    beta: float = setting(0.7, "Cost of false negatives.", gt=0.0, le=10.0)


class FocalTverskyTerm(OverlapTerm):
    """Focal Tversky (Abraham and Khan 2019, arXiv:1810.07842)."""

    focal_tversky: Weight = setting(..., "Weight of this term in the sum.")
    alpha: float = setting(0.3, "Cost of false positives.", gt=0.0, le=10.0)
    beta: float = setting(0.7, "Cost of false negatives.", gt=0.0, le=10.0)
    gamma: float = setting(0.75, "Exponent of 1 - Tversky (the paper's 1/gamma).", gt=0, le=10)


class CrossEntropyTerm(Section):
    """Cross-entropy: binary for sigmoid targets, categorical for target=labels."""

    cross_entropy: Weight = setting(..., "Weight of this term in the sum.")
    weights: tuple[Weight, ...] | None = setting(
        None,
        "Weights of the target's channels, of target=labels of all four; null: equal.",
        min_length=1,
    )


class FocalTerm(Section):
    """Focal cross-entropy (Lin et al. 2017, arXiv:1708.02002)."""

    focal: Weight = setting(..., "Weight of this term in the sum.")
    gamma: float = setting(2.0, "Focusing exponent; 0 is plain cross-entropy.", ge=0.0, le=10.0)
    alpha: Share | tuple[Weight, ...] | None = setting(
        None,
        "Balance. One number: the weight of tumour, against 1 - alpha of the rest. A list, of a "
        "sigmoid target: that number for each channel; of target=labels: the weight of each of the "
        "four. null: none.",
    )


class TopKTerm(Section):
    """Cross-entropy of the worst voxels only (Wu et al. 2016, arXiv:1605.06885)."""

    top_k: Weight = setting(..., "Weight of this term in the sum.")
    share: float = setting(0.1, "Share of the voxels that count.", unit="fraction", gt=0, le=1)


class BoundaryTerm(OverlapTerm):
    """Boundary F1 (Bokhovkin and Burnaev 2019, arXiv:1905.07852)."""

    boundary: Weight = setting(..., "Weight of this term in the sum.")
    width: Literal[3, 5, 7] = setting(3, "Window that finds boundaries.", unit="voxels")
    tolerance: Literal[3, 5, 7, 9] = setting(
        5, "Window within which two boundaries count as one.", unit="voxels"
    )


class ImportedTerm(Section):
    """A function of the user by its import path: `{my_losses.log_cosh: 0.5, smooth: 2}`.

    It is called as function(masks, probabilities, **options), or, if it has an argument
    `activation`, as function(masks, logits, activation, **options) (docs/extending.md).
    """

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra=lambda schema: schema.update(
            {"not": {"anyOf": [{"required": [name]} for name in TERMS]}}
        ),
    )

    @model_validator(mode="after")
    def _check_weight(self) -> "ImportedTerm":
        name = str(term_name(self))
        weight = (self.model_extra or {})[name]
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not weight >= 0:
            raise ValueError(
                f"loss: the weight of {name} is {json.dumps(weight, default=str)}, expected a "
                "number of at least 0"
            )
        return self


TERMS: dict[str, type[Section]] = {
    "dice": DiceTerm,
    "generalised_dice": GeneralisedDiceTerm,
    "jaccard": JaccardTerm,
    "tversky": TverskyTerm,
    "focal_tversky": FocalTverskyTerm,
    "cross_entropy": CrossEntropyTerm,
    "focal": FocalTerm,
    "top_k": TopKTerm,
    "boundary": BoundaryTerm,
}
"""Name of a loss in the config -> its settings. Its function has the same name in
`losses/functional.py`."""


def term_name(term: Any) -> str | None:
    """Return which loss a term of the config names, an import path for a function of the user.

    It is None where it names none or several.
    """
    keys: Any = term
    if isinstance(term, Section):
        keys = {**type(term).model_fields, **(term.model_extra or {})}
    if not isinstance(keys, Mapping):
        return None
    names = [name for name in keys if name in TERMS or is_import_path(name)]
    return names[0] if len(names) == 1 else None


def weighted_term(terms: Sequence[Any]) -> int | None:
    """Return the number of the first term with a weight per tumour channel, or None."""
    return next((i for i, term in enumerate(terms) if isinstance(term, OverlapTerm)), None)


def _tag(term: Any) -> str | None:
    name = term_name(term)
    return "imported" if is_import_path(name) else name


if TYPE_CHECKING:
    LossTerm = Section
else:
    _KINDS = {**TERMS, "imported": ImportedTerm}
    LossTerm = Annotated[
        reduce(or_, (Annotated[kind, Tag(tag)] for tag, kind in _KINDS.items())),
        Discriminator(_tag),
    ]


def term_weight(term: LossTerm) -> float:
    """Return the weight of a term in the sum."""
    return float(getattr(term, str(term_name(term))))


_LEAST_OF_OVERLAP, _LEAST_OF_VOXELS = 0.015, 0.001
"""Shares of the loss that the background needs, of means over classes and of cross-entropies: with
less of it small networks (`tests/losses/test_build.py`) gave all of the background to one class."""


def background_warning(terms: Sequence[LossTerm], target: str) -> str | None:
    """Return a sentence where one class may take everything that is not tumour, or None.

    With softmax some channel has to have the background. A loss that does not count it pushes the
    channels of tumour out of it one by one, until a single one holds all and has no gradient left.
    """
    if anatomy.ACTIVATIONS[target] != "softmax":
        return None
    total = sum(getattr(term, term_name(term) or "") for term in terms)
    for term in terms:
        share = getattr(term, term_name(term) or "") * _background_share(term, target) / total
        if share >= (_LEAST_OF_OVERLAP if isinstance(term, OverlapTerm) else _LEAST_OF_VOXELS):
            return None
    return (
        f"loss counts the background of model.target={target} not at all or hardly, so that one "
        "class may take everything that is not tumour: add a term that sees it, such as "
        "{cross_entropy: 1}, or give it a weight of its own, such as {dice: 1, weights: [0.1, 1, "
        "1, 1]}."
    )


def _background_share(term: LossTerm, target: str) -> float:
    """Return the part that the background has in a term of a softmax target, 0 to 1."""
    weights, channels = getattr(term, "weights", None), len(anatomy.TARGETS[target])
    if isinstance(term, BoundaryTerm):
        return 0.0  # a class that fills the patch has no outline
    if isinstance(term, OverlapTerm) and (weights is None or len(weights) < channels):
        return 0.0
    if weights is not None:
        return float(weights[0] / sum(weights))
    alpha = getattr(term, "alpha", None)
    if isinstance(term, FocalTerm) and alpha is not None:
        return float(alpha[0] / sum(alpha) if isinstance(alpha, tuple) else 1 - alpha)
    return 1.0


def check_terms(
    terms: Sequence[LossTerm], target: str, patch_size: tuple[int, ...], supervision: int
) -> None:
    """Raise ValueError where terms do not fit the target's channels or the patches.

    supervision: heads at 1/2, 1/4, … of the resolution, for which the loss is computed too.
    """
    if sum(map(term_weight, terms)) <= 0:
        raise ValueError(
            "loss: every term has the weight 0, so there is nothing to learn: give one a weight, "
            "such as loss.0.dice=1"
        )
    for index, term in enumerate(terms):
        if isinstance(term, ImportedTerm):
            continue  # what its options mean is the function's own affair
        weights, alpha = getattr(term, "weights", None), getattr(term, "alpha", None)
        if weights is not None:
            _check_per_channel(f"loss.{index}.weights", weights, term, target)
        if isinstance(alpha, tuple):
            _check_per_channel(f"loss.{index}.alpha", alpha, term, target)
            if anatomy.ACTIVATIONS[target] == "sigmoid" and max(alpha) > 1:
                raise ValueError(
                    f"loss.{index}.alpha has {max(alpha):g}, but model.target={target} weighs the "
                    "rest by 1 - alpha: at most 1 each"
                )
        if isinstance(term, BoundaryTerm):
            smallest = -(-min(patch_size) // 2**supervision)
            window = max(term.width, term.tolerance)
            if window > smallest:
                name = "width" if term.width == window else "tolerance"
                head = " at the lowest head of model.deep_supervision" if supervision else ""
                raise ValueError(
                    f"loss.{index}.{name} {window} is larger than the smallest side, {smallest} "
                    f"voxels{head}, of pipeline.patch_size {list(patch_size)}"
                )


def _check_per_channel(
    setting_name: str, numbers: tuple[float, ...], term: LossTerm, target: str
) -> None:
    channels, tumour = tuple(anatomy.TARGETS[target]), anatomy.tumour_channels(target)
    allowed = [channels, tumour] if isinstance(term, OverlapTerm) else [channels]
    if len(numbers) not in map(len, allowed):
        or_tumour = f" or {', '.join(tumour)}" if tumour in allowed and tumour != channels else ""
        raise ValueError(
            f"{setting_name} has {len(numbers)} number(s), but model.target={target} has "
            f"{len(channels)} channel(s): give one for each of {', '.join(channels)}{or_tumour}, "
            "or null"
        )
    if sum(numbers) <= 0:
        raise ValueError(f"{setting_name} are all 0: give one class a weight, or null")
