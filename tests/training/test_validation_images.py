import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.targets import label_to_masks
from kerasseg.training.tensorboard import ValidationImages

SIZE = (6, 10)


class Constant(keras.layers.Layer):
    """Predicts the first K channels of the image, or its first one K times, as probabilities."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels

    def call(self, image):
        if image.shape[-1] < self.channels:
            return keras.ops.repeat(image[..., :1], self.channels, axis=-1)
        return image[..., : self.channels]


def strip(tmp_path, image, masks, *, modalities, target, fillers=0):
    """The picture that TensorBoard is given, (patches, h, panels, w, 3) uint8.

    The batch is filled up with `fillers` zeros, as the last ones of a validation are.
    """
    layer = Constant(len(anatomy.TARGETS[target]))
    network = keras.Sequential([keras.Input(image.shape[1:]), layer])
    weight = np.repeat(np.float32([1, 0]), [len(image), fillers])
    image, masks = (np.pad(a, [(0, fillers), *[(0, 0)] * (a.ndim - 1)]) for a in (image, masks))
    batch = (image.astype(np.float16), masks.astype(np.uint8), weight)
    batches = tf.data.Dataset.from_tensors(batch)
    callback = ValidationImages(tmp_path, network, batches, modalities=modalities, target=target)
    callback.on_train_begin()
    callback.on_epoch_end(0)
    callback.on_train_end()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "validation")).Reload()
    (event,) = events.Tensors("modalities, truth, prediction")
    pictures = [tf.io.decode_png(png).numpy() for png in event.tensor_proto.string_val[2:]]
    return np.stack(pictures).reshape(len(pictures), SIZE[0], -1, SIZE[1], 3)


def rgb(name):
    code = anatomy.COLOURS[name].lstrip("#")
    return [int(code[i : i + 2], 16) for i in (0, 2, 4)]


@pytest.mark.parametrize("neighbours", [0, 1, 2])
def test_slices_show_their_modalities_truth_and_prediction(tmp_path, neighbours):
    """Of 2.5-D channels the middle slice: ramps across it, noise in its neighbours."""
    channels = 2 * (1 + 2 * neighbours)
    image = np.random.default_rng(0).normal(size=(3, *SIZE, channels))
    middle = 2 * neighbours
    image[..., middle] = np.linspace(0, 1, SIZE[1])
    image[..., middle + 1] = np.linspace(0, 1, SIZE[0])[:, None]
    image[..., 0] = image[..., 0] if neighbours else np.linspace(0, 1, SIZE[1])
    target = np.zeros((3, *SIZE, 1))
    target[:, 1:3, 4:9] = 1
    panels = strip(tmp_path, image, target, modalities=2, target="binary")
    assert panels.shape == (3, SIZE[0], 4, SIZE[1], 3)
    first, second = panels[0, :, 0, :, 0].astype(int), panels[0, :, 1, :, 0].astype(int)
    assert (np.diff(first, axis=1) >= 0).all() and np.ptp(first) > 200
    assert (np.diff(second, axis=0) >= 0).all() and np.ptp(second) > 200
    truth, prediction = panels[0, :, 2], panels[0, :, 3]
    np.testing.assert_array_equal(truth[1:3, 4:9], np.broadcast_to(rgb("tumour"), (2, 5, 3)))
    assert truth.sum() == truth[1:3, 4:9].sum()
    found = image[0, ..., 0].astype(np.float16) >= 0.5
    np.testing.assert_array_equal(prediction.any(axis=-1), found)


def test_volumes_show_the_slice_with_most_tumour(tmp_path):
    image = np.random.default_rng(0).normal(size=(1, 4, *SIZE, 1))
    target = np.zeros((1, 4, *SIZE, 3))
    target[0, 2, :4, :5, 1] = 1
    target[0, 3, 0, 0, 0] = 1
    panels = strip(tmp_path, image, target, modalities=1, target="subregions")
    assert panels.shape == (1, SIZE[0], 3, SIZE[1], 3)
    truth = panels[0, :, 1]
    np.testing.assert_array_equal(truth[:4, :5], np.broadcast_to(rgb("ED"), (4, 5, 3)))
    assert truth.sum() == truth[:4, :5].sum()


@pytest.mark.parametrize(
    ("target", "colours"),
    [
        ("labels", (None, "NCR", "ED", "ET")),
        ("subregions", (None, "NCR", "ED", "ET")),
        ("regions", (None, "TC", "WT", "ET")),
        ("binary", (None, "tumour", "tumour", "tumour")),
    ],
)
def test_every_target_has_its_colours_in_truth_and_prediction(tmp_path, target, colours):
    """Labels in columns, slices of background only above and below. The prediction is the truth
    mirrored; its softmax channels stay below 0.5, and the background is black."""
    label = np.zeros((1, 3, *SIZE), np.uint8)
    label[0, 1] = np.arange(SIZE[1]) % 4
    masks = label_to_masks(label, target)
    low, high = (0.2, 0.4) if target == "labels" else (0.1, 0.9)
    image = np.zeros((1, 3, *SIZE, 4))
    image[..., : masks.shape[-1]] = np.where(masks[..., ::-1, :], high, low)
    panels = strip(tmp_path, image, masks, modalities=4, target=target)
    assert panels.shape == (1, SIZE[0], 6, SIZE[1], 3)
    column = [[0, 0, 0] if c is None else rgb(c) for c in colours]
    expected = np.array([[column[i % 4] for i in range(SIZE[1])]] * SIZE[0])
    np.testing.assert_array_equal(panels[0, :, 4], expected)
    np.testing.assert_array_equal(panels[0, :, 5], expected[:, ::-1])


def test_where_predictions_overlap_the_innermost_is_shown(tmp_path):
    """Sigmoids of sub-regions that all hold: enhancing tumour, as in the figures."""
    image = np.full((1, *SIZE, 3), 0.8)
    image[:, :3, :, 2] = 0.2
    panels = strip(tmp_path, image, np.zeros_like(image), modalities=1, target="subregions")
    prediction = panels[0, :, 2]
    assert (prediction[:3] == rgb("NCR")).all() and (prediction[3:] == rgb("ET")).all()


def test_what_only_fills_up_the_batch_is_not_shown(tmp_path):
    image = np.random.default_rng(0).normal(size=(2, *SIZE, 3))
    masks = (image > 0).astype(np.uint8)
    filled, plain = (
        strip(tmp_path / str(n), image, masks, modalities=1, target="subregions", fillers=n)
        for n in (2, 0)
    )
    assert len(filled) == 2 and filled.any()
    np.testing.assert_array_equal(filled, plain)


def test_a_machine_without_a_validation_case_shows_nothing(tmp_path):
    """Its batches are zeros only, in number those of the other machines."""
    zeros = np.zeros((2, *SIZE, 3))
    batch = zeros.astype(np.float16), zeros.astype(np.uint8), np.zeros(2, np.float32)
    network = keras.Sequential([keras.Input(zeros.shape[1:]), Constant(3)])
    callback = ValidationImages(
        tmp_path,
        network,
        tf.data.Dataset.from_tensors(batch),
        modalities=1,
        target="subregions",
    )
    callback.on_train_begin()
    callback.on_epoch_end(0)
    callback.on_train_end()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert EventAccumulator(str(tmp_path / "validation")).Reload().Tags()["tensors"] == []
