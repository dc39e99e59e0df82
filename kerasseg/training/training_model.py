"""The network as it is trained: logits, extra heads, loss and metrics."""

from typing import Any

import keras

from kerasseg import anatomy
from kerasseg.metrics.segmentation import SegmentationMetrics
from kerasseg.models.deep_supervision import supervision_logits


class TrainingModel(keras.Model):
    """A twin of `network` that shares its weights and has `supervision` further heads.

    Called on an image (B, *spatial, C) it gives the logits of `network` (B, *spatial, K); with
    heads a list of them and of those at 1/2, 1/4, … of the resolution. `loss` is called as
    loss(masks, logits). In training the loss is the mean of all heads' with weights 2^-i, against
    every 2^i-th voxel of the masks; `val_loss` is that of the network's own output, which alone is
    saved. The network itself stays uncompiled, so that its checkpoint needs no code of ours.

    Metrics are those of `SegmentationMetrics`, of the network's own output, flat in the logs.
    """

    def __init__(
        self, network: keras.Model, target: str, loss: keras.losses.Loss, supervision: int = 0
    ) -> None:
        channels, activation = tuple(anatomy.TARGETS[target]), anatomy.ACTIVATIONS[target]
        heads = supervision_logits(network, supervision, len(channels))
        super().__init__(
            network.input, [network.get_layer("logits").output, *heads], name=network.name
        )
        self.loss_of_masks = loss
        self.activation = keras.activations.get(activation)
        self.segmentation = SegmentationMetrics(channels, softmax=activation == "softmax")
        total = sum(2.0**-level for level in range(supervision + 1))
        self.head_weights = tuple(2.0**-level / total for level in range(supervision + 1))

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        heads = _as_list(y_pred)
        if not training:
            return self.loss_of_masks(y, heads[0])
        total = 0.0
        for level, (weight, logits) in enumerate(zip(self.head_weights, heads, strict=True)):
            every = (slice(None), *[slice(None, None, 2**level)] * (len(logits.shape) - 2))
            total += weight * self.loss_of_masks(y[every], logits)
        return total

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        self.segmentation.update_state(y, self.activation(_as_list(y_pred)[0]))
        return self.get_metrics_result()


def _as_list(y_pred: Any) -> list[Any]:
    """All logits: Keras takes a single one out of its list."""
    return list(y_pred) if isinstance(y_pred, list | tuple) else [y_pred]
