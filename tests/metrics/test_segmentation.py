"""Scores of an epoch against counting voxel by voxel, in one process and on two replicas."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial import distance

from kerasseg import anatomy
from kerasseg.metrics.overlap import dice
from kerasseg.metrics.segmentation import SegmentationMetrics
from kerasseg.targets import label_to_masks, probabilities_to_masks
from tests.program import run_program

CHANNELS = ("WT", "TC", "ET")
SCORES = ("dice", "iou", "precision", "recall")
SCANS = 9


def brute_force(truth, prediction, channels):
    """Of masks (..., K) of a whole epoch: SciPy's Dice and Jaccard, precision and recall by
    counting, and the rule for empty channels."""
    result = {}
    for index, name in enumerate(channels):
        t, p = (m[..., index].ravel().astype(bool) for m in (truth, prediction))
        if not t.any() and not p.any():
            values = (1.0,) * 4
        elif not t.any() or not p.any():
            values = (0.0,) * 4
        else:
            pairs = list(zip(t.tolist(), p.tolist(), strict=True))
            values = (
                1 - distance.dice(t, p),
                1 - distance.jaccard(t, p),
                pairs.count((True, True)) / sum(b for _, b in pairs),
                pairs.count((True, True)) / sum(a for a, _ in pairs),
            )
        result |= {f"{score}_{name}": v for score, v in zip(SCORES, values, strict=True)}
    for score in SCORES:
        result[score] = np.mean([result[f"{score}_{name}"] for name in channels])
    return result


def floats(metric):
    return {name: float(value) for name, value in metric.result().items()}


def counts(metric):
    """TP, FP and FN per channel (3, K) as exact integers."""
    high, low = (np.asarray(w).astype(np.int64) for w in metric.variables)
    return high * 4096 + low


def random_scans(count):
    """Images (count, 2, 3, 5, 3) and masks whose shares of tumour grow from scan to scan, so that a
    mean of ratios is not the ratio of sums."""
    rng = np.random.default_rng(3)
    shape = (count, 2, 3, 5, len(CHANNELS))
    share = np.linspace(0.02, 0.95, count)[:, None, None, None, None]
    return rng.normal(size=shape).astype(np.float32), (rng.random(shape) < share).astype(np.uint8)


def fixed_network(channels):
    """Probabilities sigmoid(image - 0.3), channel by channel."""
    image = keras.Input((None, None, None, channels))
    head = keras.layers.Conv3D(channels, 1, name="head")
    network = keras.Model(image, keras.layers.Activation("sigmoid")(head(image)))
    kernel = np.eye(channels).reshape(1, 1, 1, channels, channels)
    head.set_weights([kernel, np.full(channels, -0.3)])
    return network


class Scored(keras.Model):
    """A model that reports the metric under flat names."""

    def __init__(self, network):
        super().__init__(network.input, network.output)
        self.scores = SegmentationMetrics(CHANNELS)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self.scores.update_state(y, y_pred)
        return self.get_metrics_result()


MODES = [
    ((7, 2, 3, 5), "eager"),
    ((7, 2, 3, 5), "graph"),
    ((7, 4, 6), "graph"),
    ((7, 4, 6), "XLA"),
]


@pytest.mark.parametrize(
    ("target", "shape", "mode"),
    [
        # XLA compiles the same operations for each target, and softmax has one more.
        pytest.param(target, *mode, marks=pytest.mark.all_only)
        if mode[1] == "XLA" and target != "labels"
        else (target, *mode)
        for target in anatomy.TARGETS
        for mode in MODES
    ],
)
def test_several_batches_of_different_sizes(target, shape, mode):
    rng = np.random.default_rng(0)
    names, channels = tuple(anatomy.TARGETS[target]), anatomy.tumour_channels(target)
    truth = label_to_masks(rng.integers(0, 4, shape) * (rng.random(shape) < 0.7), target)
    probabilities = rng.random((*shape, len(names))).astype(np.float32)
    softmax = anatomy.ACTIVATIONS[target] == "softmax"
    metric = SegmentationMetrics(names, softmax=softmax, threshold=0.4)
    update = metric.update_state
    if mode != "eager":
        update = tf.function(update, jit_compile=mode == "XLA", reduce_retracing=mode == "graph")
    for first, last in ((0, 1), (1, 5), (5, 7)):
        batch = truth[first:last].astype(np.uint8), probabilities[first:last]
        update(*map(tf.constant, batch))
    prediction = probabilities_to_masks(probabilities, target, 0.4)
    keep = [names.index(name) for name in channels]
    expected = brute_force(truth[..., keep], prediction[..., keep], channels)
    found = floats(metric)
    assert list(found) == [n for s in SCORES for n in (s, *(f"{s}_{c}" for c in channels))]
    assert found == pytest.approx(expected, rel=1e-6)
    whole = dice(truth[..., keep[0]], prediction[..., keep[0]])
    assert found[f"dice_{channels[0]}"] == pytest.approx(whole, rel=1e-6)
    metric.reset_state()
    assert set(floats(metric).values()) == {1.0}, "nothing seen: empty in truth and prediction"
    metric.update_state(truth, probabilities)
    assert floats(metric) == pytest.approx(expected, rel=1e-6)


MASKS = hnp.arrays(bool, (2, 3, 4, 2))


@given(MASKS, MASKS, MASKS, MASKS)
def test_any_masks(truth, prediction, more_truth, more_prediction):
    metric = SegmentationMetrics(("NCR", "ED"))
    metric.update_state(truth.astype(np.uint8), prediction.astype(np.float32))
    metric.update_state(more_truth.astype(np.uint8), more_prediction.astype(np.float32))
    both = np.stack([truth, more_truth]), np.stack([prediction, more_prediction])
    assert floats(metric) == pytest.approx(brute_force(*both, ("NCR", "ED")), rel=1e-6)


def test_a_channel_empty_in_both_scores_one_and_in_one_of_them_nothing():
    truth = np.zeros((1, 2, 3, 3), np.uint8)
    probabilities = np.zeros((1, 2, 3, 3), np.float32)
    truth[0, 0, 0, 1] = 1
    probabilities[0, 0, 0, 2] = 1
    metric = SegmentationMetrics(CHANNELS)
    metric.update_state(truth, probabilities)
    found = floats(metric)
    for score in SCORES:
        assert [found[f"{score}_{name}"] for name in CHANNELS] == [1, 0, 0]
        assert found[score] == pytest.approx(1 / 3)


def test_equally_probable_channels_are_the_first_as_in_whole_volumes():
    """Saturated float16 probabilities tie often."""
    rng = np.random.default_rng(0)
    probabilities = rng.integers(0, 3, (4, 5, 6, 4)).astype(np.float16)
    names = tuple(anatomy.TARGETS["labels"])
    metric = SegmentationMetrics(names, softmax=True)
    metric.update_state(probabilities_to_masks(probabilities, "labels"), probabilities)
    assert counts(metric)[1:].sum() == 0 and counts(metric)[0].min() > 0
    assert set(floats(metric).values()) == {1.0}


def test_a_batch_of_more_voxels_than_float32_can_count():
    """2^24 + 1 cannot be told from 2^24 in float32."""
    shape = (5, 149, 151, 153, 1)
    voxels = int(np.prod(shape))
    assert voxels > 2**24 and int(np.float32(voxels)) != voxels
    truth = np.ones(shape, np.uint8)
    probabilities = np.ones(shape, np.float32)
    truth[4, 3, 2, 1] = probabilities[1, 2, 3, 4] = 0
    metric = SegmentationMetrics(("tumour",))
    metric.update_state(truth, probabilities)
    one = np.ones((1, 1, 1, 1, 1))
    for _ in range(4):
        metric.update_state(one, one)
    assert counts(metric).ravel().tolist() == [voxels + 2, 1, 1]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=40), st.booleans())
def test_sums_of_many_large_batches_are_exact(batches, compiled):
    """As of an epoch of 128^3 patches: counts go in as a batch's sums come out of `_count`, with
    the fewest and with the most voxels that its low part may have."""
    metric = SegmentationMetrics(("tumour",))
    add = tf.function(metric._add) if compiled else metric._add
    for voxels in batches:
        fewest = voxels % 4096
        most = voxels if voxels < 2**24 else fewest + 2**24 - 4096
        low = np.array([[fewest], [most], [1]])
        high = (np.array([[voxels], [voxels], [1]]) - low) / 4096
        add(tf.constant(high, tf.float32), tf.constant(low, tf.float32))
    total = sum(batches)
    assert counts(metric).ravel().tolist() == [total, total, len(batches)]
    assert np.asarray(metric.variables[1]).max() < 4096


def test_scores_after_many_voxels_still_move():
    """100 batches of 2^24 voxels found, then 10 of 2^24 missed."""
    metric = SegmentationMetrics(("tumour",))
    for batch in range(110):
        found, missed = (2.0**24, 0.0) if batch < 100 else (0.0, 2.0**24)
        metric._add(tf.constant([[found / 4096], [0], [missed / 4096]]), tf.zeros((3, 1)))
    assert floats(metric)["recall"] == pytest.approx(100 / 110, rel=1e-6)
    assert floats(metric)["dice"] == pytest.approx(200 / 210, rel=1e-6)


def test_in_a_fit_the_names_are_flat_and_the_last_epoch_counts_alone():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        images, masks = random_scans(7)
        model = Scored(fixed_network(len(CHANNELS)))
        model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse", jit_compile=False)
        history = model.fit(
            images, masks, batch_size=3, epochs=2, verbose=0, validation_data=(images, masks)
        ).history
        assert {w.dtype for w in model.scores.variables} == {"float32"}
        prediction = np.asarray(model(images)) >= 0.5
    finally:
        keras.config.set_dtype_policy("float32")
    names = [n for s in SCORES for n in (s, *(f"{s}_{c}" for c in CHANNELS))]
    assert set(history) == {"loss", "val_loss", *names, *(f"val_{name}" for name in names)}
    expected = brute_force(masks, prediction, CHANNELS)
    for prefix in ("", "val_"):
        last = {name: history[prefix + name][-1] for name in names}
        assert last == pytest.approx(expected, rel=1e-5)
    ratios = [brute_force(m, p, CHANNELS)["dice"] for m, p in zip(masks, prediction, strict=True)]
    assert abs(np.mean(ratios) - expected["dice"]) > 0.02, "a mean of ratios would be seen"


@pytest.mark.all_only  # test_replicas scores batches that cannot be shared equally
def test_two_replicas_count_what_one_device_counts():
    """Nine scans in batches that the replicas cannot share equally; in the last one of a fit one
    replica has nothing."""
    ran = run_program(["-m", "tests.metrics.two_replicas"])
    assert ran.returncode == 0, ran.stderr[-3000:]
    found = json.loads(ran.stdout.splitlines()[-1])
    images, masks = random_scans(SCANS)
    probabilities = np.asarray(fixed_network(len(CHANNELS))(images))
    metric = SegmentationMetrics(CHANNELS)
    metric.update_state(masks, probabilities)
    one_device = floats(metric)
    assert one_device == pytest.approx(brute_force(masks, probabilities >= 0.5, CHANNELS), rel=1e-6)
    assert found["alone"] == pytest.approx(one_device, rel=1e-6)
    for name, value in one_device.items():
        assert found["evaluated"][name] == pytest.approx(value, rel=1e-6)
        assert found["fitted"][name] == pytest.approx(value, rel=1e-6)
        assert found["fitted"][f"val_{name}"] == pytest.approx(value, rel=1e-6)


def test_counts_are_float32_whatever_keras_computes_in():
    """float16 counts to 2048."""
    keras.config.set_floatx("float16")
    try:
        metric = SegmentationMetrics(("tumour",))
        metric.update_state(np.ones((1, 50, 51, 1), np.uint8), np.ones((1, 50, 51, 1), np.float16))
        assert {w.dtype for w in metric.variables} == {"float32"}
        assert counts(metric).ravel().tolist() == [2550, 0, 0]
    finally:
        keras.config.set_floatx("float32")


def test_its_settings():
    names = tuple(anatomy.TARGETS["labels"])
    metric = SegmentationMetrics(names, softmax=True, threshold=0.3, name="scores")
    again = SegmentationMetrics.from_config(metric.get_config())
    assert again.get_config() == metric.get_config() and again.name == "scores"
    assert again.channels == names and again.softmax and again.threshold == 0.3
    with pytest.raises(ValueError, match="nothing to score"):
        SegmentationMetrics(("background",))
    with pytest.raises(ValueError, match="softmax two"):
        SegmentationMetrics(("tumour",), softmax=True)


def test_samples_of_weight_0_do_not_count():
    random = np.random.default_rng(0)
    truth, prediction = random.integers(0, 2, (3, 5, 4, 2)), random.random((3, 5, 4, 2))
    weighed, kept = SegmentationMetrics(("a", "b")), SegmentationMetrics(("a", "b"))
    weighed.update_state(truth, prediction, np.array([0.3, 0, 1]))
    kept.update_state(truth[[0, 2]], prediction[[0, 2]])
    assert {k: float(v) for k, v in weighed.result().items()} == {
        k: float(v) for k, v in kept.result().items()
    }
