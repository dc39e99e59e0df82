"""`inference.clean_up.finished_masks` and `targets.masks_to_label` in a graph."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from kerasseg import anatomy
from kerasseg.inference.clean_up.clean_channels import clean_channels
from kerasseg.inference.clean_up.finished_masks import channel_thresholds
from kerasseg.serving.graph.box import bounding_box
from kerasseg.serving.graph.graph_operations import GraphOperations
from kerasseg.settings.postprocessing import PostprocessingSettings
from kerasseg.targets import WRITES


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
