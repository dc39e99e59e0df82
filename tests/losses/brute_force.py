"""Every loss again, as loops over voxels with Python's floats: slow, and plain to read.

truth, probability: arrays (B, ..., K); every function returns one number.
"""

import itertools
import math

import numpy as np


def voxels(masks):
    """Samples x voxels x channels, as lists of floats."""
    return masks.reshape(masks.shape[0], -1, masks.shape[-1]).astype(float).tolist()


def groups(samples, reduction):
    """The voxels that are summed together: all, or those of each sample."""
    return [list(itertools.chain(*samples))] if reduction == "batch" else samples


def mean_over_classes(loss_of_class, truth, probability, weights, reduction):
    """Mean over groups, then over classes, of loss_of_class(true values, predicted values)."""
    channels = truth.shape[-1]
    weights = weights or [1.0] * channels
    total = 0.0
    for c in range(channels):
        of_groups = [
            loss_of_class([voxel[c] for voxel in t], [voxel[c] for voxel in p])
            for t, p in zip(
                groups(voxels(truth), reduction),
                groups(voxels(probability), reduction),
                strict=True,
            )
        ]
        total += weights[c] * sum(of_groups) / len(of_groups)
    return total / sum(weights)


def counts(true, predicted):
    """True positives, false positives and false negatives, soft."""
    pairs = list(zip(true, predicted, strict=True))
    hits = sum(t * p for t, p in pairs)
    return hits, sum((1 - t) * p for t, p in pairs), sum(t * (1 - p) for t, p in pairs)


def dice(truth, probability, activation, weights=None, smooth=1.0, reduction="batch", squared=0):
    def of_class(true, predicted):
        power = 2 if squared else 1
        below = sum(t**power for t in true) + sum(p**power for p in predicted) + smooth
        return 1 - (2 * counts(true, predicted)[0] + smooth) / below

    return mean_over_classes(of_class, truth, probability, weights, reduction)


def jaccard(truth, probability, activation, weights=None, smooth=1.0, reduction="batch"):
    def of_class(true, predicted):
        hits, extra, missed = counts(true, predicted)
        return 1 - (hits + smooth) / (hits + extra + missed + smooth)

    return mean_over_classes(of_class, truth, probability, weights, reduction)


def focal_tversky(
    truth, probability, activation, weights=None, smooth=1.0, reduction="batch", alpha=0.3,
    beta=0.7, gamma=0.75,
):  # fmt: skip
    def of_class(true, predicted):
        hits, extra, missed = counts(true, predicted)
        index = (hits + smooth) / (hits + alpha * extra + beta * missed + smooth)
        return (1 - index) ** gamma

    return mean_over_classes(of_class, truth, probability, weights, reduction)


def tversky(truth, probability, activation, **options):
    return focal_tversky(truth, probability, activation, **options, gamma=1.0)


def generalised_dice(truth, probability, activation, smooth=1.0, reduction="batch"):
    losses = []
    for t, p in zip(
        groups(voxels(truth), reduction), groups(voxels(probability), reduction), strict=True
    ):
        sizes = [sum(voxel[c] for voxel in t) for c in range(truth.shape[-1])]
        rarest = min([size for size in sizes if size > 0], default=1.0)
        above = below = smooth
        for c, size in enumerate(sizes):
            weight = (rarest / size) ** 2 if size else 1.0
            true, predicted = [voxel[c] for voxel in t], [voxel[c] for voxel in p]
            above += 2 * weight * counts(true, predicted)[0]
            below += weight * (size + sum(predicted))
        losses.append(1 - above / below)
    return sum(losses) / len(losses)


def entropies(truth, probability, activation):
    """(true channel or None, p of what is true, channel) of each cross-entropy."""
    for t, p in zip(
        itertools.chain(*voxels(truth)), itertools.chain(*voxels(probability)), strict=True
    ):
        if activation == "softmax":
            (c,) = [c for c, value in enumerate(t) if value == 1]
            yield True, p[c], c
        else:
            for c, (value, chance) in enumerate(zip(t, p, strict=True)):
                yield value == 1, chance if value == 1 else 1 - chance, c


def cross_entropy(truth, probability, activation, weights=None):
    above = below = 0.0
    for _, chance, c in entropies(truth, probability, activation):
        weight = weights[c] if weights else 1.0
        above -= weight * math.log(chance)
        below += weight
    return above / below if below else 0.0


def focal(truth, probability, activation, gamma=2.0, alpha=None):
    losses = []
    for holds, chance, c in entropies(truth, probability, activation):
        of_class = alpha[c] if isinstance(alpha, list | tuple) else alpha
        balance = 1.0 if alpha is None else of_class if holds else 1 - of_class
        losses.append(-balance * (1 - chance) ** gamma * math.log(chance))
    return sum(losses) / len(losses)


def top_k(truth, probability, activation, share=0.1):
    losses = sorted(-math.log(p) for _, p, _ in entropies(truth, probability, activation))
    count = max(1, int(share * len(losses)))
    return sum(losses[-count:]) / count


def largest_around(mask, size):
    """Of one sample's channel (H, W) or (D, H, W): the largest value in a window inside it."""
    out = np.empty_like(mask)
    for index in np.ndindex(mask.shape):
        window = tuple(slice(max(i - size // 2, 0), i + size // 2 + 1) for i in index)
        out[index] = max(mask[window].ravel().tolist())
    return out


def boundary(
    truth, probability, activation, weights=None, smooth=1.0, reduction="batch", width=3,
    tolerance=5,
):  # fmt: skip
    outlines, near = [], []
    for masks in (truth.astype(float), probability.astype(float)):
        outline, wide = np.empty_like(masks), np.empty_like(masks)
        for b, c in itertools.product(range(masks.shape[0]), range(masks.shape[-1])):
            outside = 1 - masks[b, ..., c]
            outline[b, ..., c] = largest_around(outside, width) - outside
            wide[b, ..., c] = largest_around(outline[b, ..., c], tolerance)
        outlines.append(outline)
        near.append(wide)
    losses, channels = [], truth.shape[-1]
    weights = weights or [1.0] * channels
    for samples in [slice(None)] if reduction == "batch" else [[b] for b in range(len(truth))]:
        for c in range(channels):
            shares = [
                (float((line[samples, ..., c] * other[samples, ..., c]).sum()) + smooth)
                / (float(line[samples, ..., c].sum()) + smooth)
                for line, other in ((outlines[1], near[0]), (outlines[0], near[1]))
            ]
            losses.append(weights[c] * (1 - 2 * shares[0] * shares[1] / sum(shares)))
    groups_of_sums = 1 if reduction == "batch" else len(truth)
    return sum(losses) / groups_of_sums / sum(weights)
