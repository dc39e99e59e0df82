"""`inference.clean_up.finished_masks` and `targets.masks_to_label` in a graph.

Connected components of a mask, as TensorFlow operations.

What cleaning up needs, in a TensorFlow graph.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.inference.postprocessing import channel_thresholds, clean_channels, least_volume
from kerasseg.serving.graph_volume import bounding_box
from kerasseg.targets import WRITES


def components(mask: Any, *, corners: bool) -> tuple[Any, Any]:
    """Mask (D, H, W) bool -> components (D, H, W) int32, and the voxels of each number.

    The numbers grow with a component's first voxel in C order, but not one by one: those between
    have no voxel. Outside of the mask is 0, which counts none.

    corners: whether voxels that touch at an edge or a corner are connected, as well as at a face

    What is connected are runs, the stretches of true voxels along the last axis, of which there
    are far fewer than voxels. Each first points to the first run that it touches; what these ways
    lead to is connected by what touches and has not come together yet.
    """
    # A frame of false, so that no look from a run leads out of the volume or into another row.
    framed = tf.pad(mask, [[1, 1], [1, 1], [1, 0]])
    line = tf.reshape(framed, [-1])
    starts = line & ~tf.concat([[False], line[:-1]], 0)
    ends = line & ~tf.concat([line[1:], [False]], 0)
    first = tf.cast(tf.where(starts)[:, 0], tf.int32)
    last = tf.cast(tf.where(ends)[:, 0], tf.int32)
    numbers = tf.where(line, tf.cumsum(tf.cast(starts, tf.int32)), 0)
    own = tf.range(1, tf.size(first) + 1)
    looks = first + _steps(tf.shape(framed), corners)[:, tf.newaxis]
    found = tf.gather(numbers, looks)  # (steps, n)

    touched = tf.reduce_min(tf.where(found > 0, found, own), axis=0)
    pointers = _shortened(tf.concat([[0], tf.minimum(touched, own)], 0))
    ones = tf.broadcast_to(pointers[1:], tf.shape(found))
    others = tf.gather(pointers, found)
    apart = (others > 0) & (others != ones)
    one, other = tf.boolean_mask(ones, apart), tf.boolean_mask(others, apart)
    lowest = lowest_connected(one, other, pointers)
    sizes = tf.math.unsorted_segment_sum(
        tf.concat([[0], last - first + 1], 0), lowest, tf.size(lowest)
    )
    numbers = tf.reshape(numbers, tf.shape(framed))[1:-1, 1:-1, 1:]
    return tf.gather(lowest, numbers), sizes


def lowest_connected(one: Any, other: Any, pointers: Any) -> Any:
    """The lowest number that each of 0 … n - 1 is connected with, (n,) int32.

    one, other: the ends of the connections, (e,) int32
    pointers:   of each number to itself or a lower one that it is connected with, (n,) int32

    In the end they point to the lowest. A round lets what both ends of a connection point to point
    to the lower of what that points to, and then shortens every way
    (Shiloach and Vishkin 1982; in this form FastSV, Zhang, Azad and Hu 2020). So the rounds grow
    with the logarithm of the longest way, not with its length.
    """
    count = tf.size(pointers)

    def round_(pointers: Any, _: Any) -> tuple[Any, Any]:
        further = tf.gather(pointers, pointers)
        lower = tf.minimum(tf.gather(further, one), tf.gather(further, other))
        found = tf.minimum(pointers, further)
        for end in (one, other):
            ends = tf.gather(pointers, end)
            found = tf.minimum(found, tf.math.unsorted_segment_min(lower, ends, count))
        return found, tf.reduce_any(found != pointers)

    pointers, _ = tf.while_loop(
        lambda _, changed: changed,
        round_,
        (pointers, tf.size(one) > 0),
        parallel_iterations=1,
    )
    return pointers


def _shortened(pointers: Any) -> Any:
    """Each to the end of its way, (n,) int32; a round halves the ways."""

    def round_(pointers: Any, _: Any) -> tuple[Any, Any]:
        further = tf.gather(pointers, pointers)
        return further, tf.reduce_any(further != pointers)

    pointers, _ = tf.while_loop(
        lambda _, changed: changed,
        round_,
        (pointers, tf.constant(True)),
        parallel_iterations=1,
    )
    return pointers


def _steps(framed: Any, corners: bool) -> Any:
    """How far, in voxels of the `framed` volume, it is from the start of a run to where to look.

    Of two runs that touch one starts within the other's reach, so it is enough to look from the
    start of each: at the voxel beside it in the rows around and, at corners, the one before that.
    """
    rows = [step for step in itertools.product((-1, 0, 1), repeat=2) if any(step)]
    if not corners:
        rows = [step for step in rows if 0 in step]
    return tf.stack(
        [
            (down * framed[1] + back) * framed[2] - before
            for down, back in rows
            for before in ((0, 1) if corners else (0,))
        ]
    )


class GraphOperations:
    """`VolumeOperations` on tensors. Masks are a part of a volume that holds all that is true.

    shape: (3,) of the whole volume. Along an axis of one voxel there is no outside
    """

    def __init__(self, shape: Any) -> None:
        self._margin = tf.cast(shape != 1, tf.int32)

    def components(self, mask: Any) -> tuple[Any, Any]:
        box = bounding_box(mask)
        found, sizes = components(box.cut(mask), corners=True)
        return box.put_back(found, tf.shape(mask), 0), sizes

    def fill_holes(self, mask: Any) -> Any:
        box, margin = bounding_box(mask), self._margin
        part = box.cut(mask)
        empty = ~tf.pad(part, tf.stack([margin, margin], axis=1))
        found, _ = components(empty, corners=False)
        # The margin is outside. It holds the first voxel, component 1, and the last, which are not
        # connected around a single row.
        last = tf.reduce_sum(tf.reshape(found, [-1])[-1:])
        cut_off = (found > 1) & (found != last)
        return box.put_back(tf.slice(cut_off, margin, box.size), tf.shape(mask), False)

    def take(self, table: Any, places: Any) -> Any:
        return tf.gather(table, places)

    def first_largest(self, sizes: Any) -> Any:
        # Not argmax, which promises nothing for equals.
        count = tf.size(sizes)
        largest = sizes == tf.reduce_max(sizes)
        return tf.reduce_min(tf.where(largest, tf.range(count), count))

    def reaches(self, sizes: Any, spacing: Any, minimum: float) -> Any:
        voxel = tf.reduce_prod(tf.cast(spacing, tf.float64))
        return tf.cast(sizes, tf.float64) * voxel >= least_volume(minimum)

    def count(self, mask: Any) -> Any:
        return tf.math.count_nonzero(mask)


def finished_masks(
    probabilities: Any,
    target: str,
    spacing: Any,
    threshold: float,
    settings: PostprocessingSettings,
    whole: Any,
) -> list[Any]:
    """Probabilities (d, h, w, K) -> K masks (d, h, w) bool, cleaned up.

    threshold: of the channels that have none in `settings.thresholds`
    spacing:   voxel size (D, H, W) in mm, (3,)
    whole:     shape (3,) of the volume; outside of the part given there is no tumour
    """
    channels = tf.unstack(probabilities, axis=-1)
    if anatomy.ACTIVATIONS[target] == "softmax":
        masks = _most_probable(channels)
    else:
        limits = channel_thresholds(target, threshold, settings)
        masks = [p >= limit for p, limit in zip(channels, limits, strict=True)]
    if settings.changes_nothing:
        return masks
    # All that is done is done within the box around all tumour.
    names = list(anatomy.TARGETS[target])
    tumour = [names.index(name) for name in anatomy.tumour_channels(target)]
    anything = masks[tumour[0]]
    for index in tumour[1:]:
        anything |= masks[index]
    box, shape = bounding_box(anything), tf.shape(anything)
    found = clean_channels(
        [box.cut(mask) for mask in masks], target, spacing, settings, GraphOperations(whole)
    )
    return [box.put_back(mask, shape, index not in tumour) for index, mask in enumerate(found)]


def label_of(masks: Sequence[Any], target: str, ids: Mapping[int, int]) -> Any:
    """K masks (D, H, W) -> label (D, H, W) uint8.

    ids: canonical id -> the id that is written
    """
    channels = list(anatomy.TARGETS[target])
    label = tf.fill(tf.shape(masks[0]), tf.constant(ids[anatomy.BACKGROUND], tf.uint8))
    for name, written in WRITES[target].items():
        own = tf.constant(ids[written], tf.uint8)
        label = tf.where(masks[channels.index(name)], own, label)
    return label


def _most_probable(channels: list[Any]) -> list[Any]:
    """One mask alone holds at each voxel: the largest channel's, of equals the first's."""
    largest = channels[0]
    for channel in channels[1:]:
        largest = tf.maximum(largest, channel)
    masks, free = [], tf.ones_like(largest, tf.bool)
    for channel in channels:
        masks.append((channel == largest) & free)
        free &= ~masks[-1]
    return masks
