"""Whole volumes through networks, against a loop over slices and windows."""

import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg import anatomy
from kerasseg.config.evaluation import PostprocessingSettings
from kerasseg.config.experiment import EvaluationSettings, PipelineSettings
from kerasseg.config.model import ModelSettings
from kerasseg.inference.predictor import Predictor, aligned_tensor
from kerasseg.inference.windows import DeviceAccumulator, WindowGrid, window_weights
from kerasseg.models.unet import unet

PATCH = (8, 12)
AXES = {"axial": 0, "coronal": 1, "sagittal": 2}


def pipeline(axis="axial", neighbours=0):
    slices = {"axis": axis, "neighbours": neighbours}
    return PipelineSettings.model_validate({"patch_size": PATCH, "slices": slices})


@pytest.fixture(scope="module")
def networks():
    """Neighbours -> a network of two modalities whose channels all matter differently."""
    result = {}
    for neighbours in (0, 1, 2):
        keras.utils.set_random_seed(neighbours)
        small = {"features": (4,), "bottleneck": 6, "encoder_blocks": 1, "decoder_blocks": 1}
        settings = ModelSettings(dimensions=2, **small)
        network = unet(settings, 2 * (1 + 2 * neighbours))
        head = network.get_layer("head")  # fresh probabilities are all near 0.5
        head.set_weights([w * 4 + 0.1 for w in head.get_weights()])
        result[neighbours] = network
    return result


@functools.cache
def compiled(network):
    """The network as a graph: several times as fast as layer by layer."""
    return tf.function(network)


def brute_force(network, volume, axis, neighbours, weighting, overlap):
    """One slice, one window, one channel and one voxel row at a time, in float64."""
    count = volume.shape[axis]
    plane_shape = tuple(n for a, n in enumerate(volume.shape[:3]) if a != axis)
    result = np.zeros((*volume.shape[:3], 3))
    weights = window_weights((1, *PATCH), weighting)[0]
    padded = [max(n, p) for n, p in zip(plane_shape, PATCH, strict=True)]
    before = [(p - n) // 2 for p, n in zip(padded, plane_shape, strict=True)]
    inner = tuple(slice(b, b + n) for b, n in zip(before, plane_shape, strict=True))
    for index in range(count):
        channels = []
        for offset in range(-neighbours, neighbours + 1):
            for modality in range(volume.shape[3]):
                channel = np.zeros(padded, np.float32)
                if 0 <= index + offset < count:
                    channel[inner] = volume[..., modality].take(index + offset, axis=axis)
                channels.append(channel)
        image = np.stack(channels, axis=-1)
        total, norm = np.zeros((*padded, 3)), np.zeros((*padded, 1))
        whole = (slice(0, 1), slice(0, padded[0]), slice(0, padded[1]))
        for _, top, left in WindowGrid(whole, (1, *PATCH), overlap).starts():
            box = (slice(top, top + PATCH[0]), slice(left, left + PATCH[1]))
            total[box] += np.asarray(compiled(network)(image[box][None]))[0] * weights[..., None]
            norm[box] += weights[..., None]
        place = [slice(None)] * 3
        place[axis] = index
        result[tuple(place)] = (total / norm)[inner]
    return result


# Every pair of axis, neighbours and weighting once; in `make test` each of their values.
@pytest.mark.parametrize(
    ("axis", "neighbours", "weighting", "batch"),
    [
        ("axial", 0, "gaussian", 5),
        ("axial", 1, "constant", 1),
        pytest.param("axial", 2, "gaussian", 1, marks=pytest.mark.all_only),
        pytest.param("coronal", 0, "constant", 5, marks=pytest.mark.all_only),
        ("coronal", 1, "gaussian", 1),
        ("coronal", 2, "constant", 1),
        pytest.param("sagittal", 0, "gaussian", 1, marks=pytest.mark.all_only),
        pytest.param("sagittal", 1, "constant", 5, marks=pytest.mark.all_only),
        ("sagittal", 2, "gaussian", 5),
    ],
)
def test_equals_a_loop_over_slices(networks, axis, neighbours, weighting, batch):
    """Four different sizes, larger and smaller than the window."""
    volume = np.random.default_rng(0).normal(size=(7, 19, 13, 2)).astype(np.float32)
    settings = EvaluationSettings(weighting=weighting, window_batch=batch, overlap=0.4)
    predictor = Predictor(
        networks[neighbours], pipeline(axis, neighbours), settings, target="subregions"
    )
    found = predictor.probabilities(volume)
    expected = brute_force(networks[neighbours], volume, AXES[axis], neighbours, weighting, 0.4)
    assert found.shape == (7, 19, 13, 3) and found.dtype == np.float32
    assert expected.std() > 0.02, "the network must tell voxels apart"
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(predictor.masks(volume), found >= 0.5)


@pytest.mark.parametrize("neighbours", [0, 1])
@pytest.mark.parametrize("shape", [(1, 20, 17, 2), (1, 5, 30, 2)])
def test_a_picture_is_a_volume_of_one_slice(networks, neighbours, shape):
    volume = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    settings = EvaluationSettings(window_batch=3)
    predictor = Predictor(
        networks[neighbours], pipeline("axial", neighbours), settings, target="subregions"
    )
    expected = brute_force(networks[neighbours], volume, 0, neighbours, "gaussian", 0.5)
    np.testing.assert_allclose(predictor.probabilities(volume), expected, atol=1e-5)


def test_every_forward_pass_is_a_full_batch_of_windows_but_the_last(networks):
    sizes = []
    network = networks[1]

    class Watched(Predictor):
        def _predict(self, windows, chosen):
            sizes.append(windows.shape)
            return super()._predict(windows, chosen)

    settings = EvaluationSettings(window_batch=4, overlap=0.0)
    Watched(network, pipeline("axial", 1), settings, target="subregions").probabilities(
        np.ones((3, 16, 24, 2))
    )
    assert sizes == [(4, *PATCH, 6)] * 3, "3 slices of 4 windows"


def test_a_smaller_last_batch_is_no_other_trace(networks):
    settings = EvaluationSettings(window_batch=3, overlap=0.0)
    predictor = Predictor(networks[0], pipeline(), settings, target="subregions")
    predictor.probabilities(np.ones((5, 8, 12, 2), np.float32))
    predictor.probabilities(np.ones((4, 11, 25, 2), np.float32))
    assert predictor._forward.experimental_get_tracing_count() == 1


def test_the_weights_are_the_current_ones_of_the_network(networks):
    """Volumes are validated while the network is trained."""
    network = keras.models.clone_model(networks[0])
    volume = np.random.default_rng(0).normal(size=(2, 8, 12, 2)).astype(np.float32)
    predictor = Predictor(network, pipeline(), EvaluationSettings(), target="subregions")
    before = predictor.probabilities(volume)
    network.get_layer("head").bias.assign([3.0, 3.0, 3.0])
    assert (predictor.probabilities(volume) > before).all()


def test_outside_the_brain_is_background_for_certain(networks):
    """A softmax network: background 1. Without evaluation.brain_box windows with brain in them are
    looked at as a whole, and without evaluation.air_is_background their air, too."""
    image = keras.Input((None, None, 2))
    head = keras.layers.Conv2D(4, 1, activation="softmax")(image)
    network = keras.Model(image, head)
    volume = np.zeros((6, 16, 24, 2), np.float32)
    volume[2:4, 3:7, 5:9] = np.random.default_rng(0).normal(size=(2, 4, 4, 2))
    volume[3, 4, 6, 0] = volume[3, 5] = 0  # a voxel without one modality, and air in the brain
    boxed, whole, ruled = (
        Predictor(
            network,
            pipeline(),
            EvaluationSettings(brain_box=box, air_is_background=rule, overlap=0.0),
            target="labels",
        ).probabilities(volume)
        for box, rule in ((True, False), (False, False), (False, True))
    )
    box = (slice(2, 4), slice(3, 7), slice(5, 9))
    looked_at = (slice(2, 4), slice(0, 8), slice(0, 12))
    for found, inside in ((boxed, box), (whole, looked_at), (ruled, (volume != 0).any(axis=-1))):
        certain = np.ones(volume.shape[:3], bool)
        certain[inside] = False
        np.testing.assert_allclose(found[certain], [[1, 0, 0, 0]] * certain.sum(), atol=1e-6)
        expected = np.asarray(network(volume))[inside]
        np.testing.assert_allclose(found[inside], expected, atol=1e-6)
        assert (found[inside][..., 0] < 0.9).all()


def mirrored_mean(predict, volume, axes):
    """Mean over all ways to mirror a whole volume (D, H, W, C), one at a time."""
    results = []
    for bits in range(2 ** len(axes)):
        index = [slice(None)] * 3
        for place, axis in enumerate(axes):
            if bits >> place & 1:
                index[axis] = slice(None, None, -1)
        index = tuple(index)
        results.append(predict(volume[index])[index])
    return np.mean(results, axis=0)


@pytest.mark.parametrize(
    ("flips", "axes"), [(["width"], [2]), (["depth", "height", "width"], [0, 1, 2])]
)
def test_flips_of_a_3d_network_are_averaged(flips, axes):
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, None, 2))
    output = keras.layers.Conv3D(3, 3, padding="same", activation="sigmoid")(image)
    network = keras.Model(image, output)
    volume = np.random.default_rng(0).normal(size=(4, 6, 8, 2)).astype(np.float32)
    patches = PipelineSettings(patch_size=(4, 6, 8))
    found, plain = (
        Predictor(network, patches, EvaluationSettings(flips=f), target="regions").probabilities(
            volume
        )
        for f in (flips, ())
    )
    expected = mirrored_mean(lambda v: np.asarray(network(v[None]))[0], volume, axes)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert np.abs(found - plain).max() > 0.05


def all_ways(volume, flips, planes):
    """(way there, way back) of every flip, and of each quarter turn of it, by NumPy."""
    ways = []
    turns = [(0, (0, 1))] + [(k, plane) for plane in planes for k in (1, 2, 3)]
    for bits in itertools.product([False, True], repeat=len(flips)):
        axes = [axis for axis, on in zip(flips, bits, strict=True) if on]
        for k, plane in turns:
            there = np.rot90(np.flip(volume, axes), k, plane)
            ways.append((there, lambda x, k=k, p=plane, a=axes: np.flip(np.rot90(x, -k, p), a)))
    return ways


PLANES = {"axial": (1, 2), "coronal": (0, 2), "sagittal": (0, 1)}


@pytest.mark.parametrize(
    ("shape", "flips", "rotations", "count"),
    [
        ((4, 6, 6), [], ["axial"], 4),
        ((4, 6, 6), ["depth"], ["axial"], 8),
        ((6, 4, 6), ["width"], ["coronal"], 8),
        ((6, 6, 4), ["depth", "height", "width"], ["sagittal"], 16),
        ((6, 6, 6), [], ["axial", "sagittal"], 7),
    ],
)
def test_turns_are_averaged(shape, flips, rotations, count):
    """The mean of all ways without those that come to the same, and each by itself."""
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, None, 2))
    output = keras.layers.Conv3D(3, 3, padding="same", activation="sigmoid")(image)
    network = keras.Model(image, output)
    volume = np.random.default_rng(0).normal(size=(*shape, 2)).astype(np.float32)
    settings = EvaluationSettings(flips=flips, rotations=rotations)
    predictor = Predictor(network, PipelineSettings(patch_size=shape), settings, target="regions")
    ways = {}  # of ways that show the network the same volume only one counts
    axes = [("depth", "height", "width").index(name) for name in flips]
    for there, back in all_ways(volume, axes, [PLANES[name] for name in rotations]):
        ways[there.tobytes()] = back(np.asarray(network(there[None]))[0])
    assert len(ways) == count
    expected = list(ways.values())
    members = list(predictor.members(volume))
    assert len(members) == count
    for member in expected:
        assert min(np.abs(member - found).max() for found in members) < 1e-5
    found = predictor.probabilities(volume)
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=1e-5)
    assert np.abs(found - expected[0]).max() > 0.02


def test_slices_are_turned_in_their_plane(networks):
    patches = PipelineSettings.model_validate(
        {"patch_size": (8, 8), "slices": {"axis": "coronal", "neighbours": 1}}
    )
    volume = np.random.default_rng(0).normal(size=(8, 3, 8, 2)).astype(np.float32)
    plain = Predictor(networks[1], patches, EvaluationSettings(), target="subregions")
    settings = EvaluationSettings(rotations=["coronal"])
    turned = Predictor(networks[1], patches, settings, target="subregions")
    expected = [
        np.rot90(plain.probabilities(np.rot90(volume, k, (0, 2))), -k, (0, 2)) for k in range(4)
    ]
    np.testing.assert_allclose(turned.probabilities(volume), np.mean(expected, axis=0), atol=1e-5)


def test_the_mean_of_the_members_over_many_windows(networks):
    settings = EvaluationSettings(flips=["height", "width"], window_batch=4)
    predictor = Predictor(networks[0], pipeline(), settings, target="subregions")
    volume = np.random.default_rng(0).normal(size=(3, 19, 25, 2)).astype(np.float32)
    members = list(predictor.members(volume))
    assert len(members) == 4
    np.testing.assert_allclose(np.mean(members, axis=0), predictor.probabilities(volume), atol=1e-5)


@pytest.mark.parametrize(
    ("axis", "flips", "axes"),
    [
        ("axial", ["width"], [2]),
        ("coronal", ["depth", "width"], [0, 2]),
        ("sagittal", ["depth"], [0]),
    ],
)
def test_flips_of_slices_stay_in_their_plane(networks, axis, flips, axes):
    """One window per slice; neighbours stay where they are."""
    shape = [5, 5, 5]
    inside = [a for a in range(3) if a != AXES[axis]]
    shape[inside[0]], shape[inside[1]] = PATCH
    volume = np.random.default_rng(0).normal(size=(*shape, 2)).astype(np.float32)
    settings = EvaluationSettings(flips=flips)
    predictor = Predictor(networks[1], pipeline(axis, 1), settings, target="subregions")

    def predict(v):
        return brute_force(networks[1], v, AXES[axis], 1, "gaussian", 0.5)

    found = predictor.probabilities(volume)
    np.testing.assert_allclose(found, mirrored_mean(predict, volume, axes), atol=1e-5)
    assert np.abs(found - predict(volume)).max() > 0.01


@pytest.mark.parametrize("threshold", [0.2, 0.5])
@pytest.mark.parametrize("target", anatomy.TARGETS)
def test_probabilities_become_the_masks_of_the_target(target, threshold):
    """Of softmax the largest of the averaged windows, of sigmoids those from the threshold on."""
    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, None, 2))
    head = keras.layers.Conv3D(len(anatomy.TARGETS[target]), 3, padding="same")(image)
    network = keras.Model(image, keras.layers.Activation(anatomy.ACTIVATIONS[target])(head))
    volume = 3 * np.random.default_rng(0).normal(size=(5, 9, 7, 2)).astype(np.float32)
    settings = EvaluationSettings(threshold=threshold)
    patches = PipelineSettings(patch_size=(4, 6, 8))
    predictor = Predictor(network, patches, settings, target=target)
    probabilities, masks = predictor.probabilities(volume), predictor.masks(volume)
    assert masks.dtype == bool and masks.shape == probabilities.shape
    if target == "labels":
        assert (masks.sum(axis=-1) == 1).all()
        np.testing.assert_array_equal(masks.argmax(axis=-1), probabilities.argmax(axis=-1))
        assert (probabilities.max(axis=-1) < 0.5).any(), "no threshold of 0.5 would find these"
    else:
        np.testing.assert_array_equal(masks, probabilities >= threshold)
    assert all(0 < masks[..., c].mean() < 1 for c in range(masks.shape[-1]))


def test_a_3d_network_gets_whole_patches():
    keras.utils.set_random_seed(0)
    network = unet(ModelSettings(features=(4,), bottleneck=6), 2)
    volume = np.random.default_rng(0).normal(size=(4, 6, 8, 2)).astype(np.float32)
    settings = PipelineSettings(patch_size=(4, 6, 8))
    predictor = Predictor(network, settings, EvaluationSettings(), target="subregions")
    found = predictor.probabilities(volume)
    np.testing.assert_allclose(found, np.asarray(network(volume[None]))[0], atol=1e-5)


def test_masks_are_cleaned_up_with_the_spacing_of_the_case():
    """Two specks of 4 voxels: 32 mm^3 at a spacing of 2 mm, 4 mm^3 where nobody says."""
    image = keras.Input((None, None, None, 1))
    network = keras.Model(image, keras.layers.Activation("sigmoid")(image))
    volume = np.full((4, 6, 8, 1), -2, np.float32)
    volume[1, 1, 1:5] = volume[3, 5, 4:8] = 2
    predictor = Predictor(
        network,
        PipelineSettings(patch_size=(4, 6, 8)),
        EvaluationSettings(),
        target="binary",
        postprocessing=PostprocessingSettings(minimum_volume={"tumour": 5}),
    )
    np.testing.assert_array_equal(predictor.masks(volume, (2.0, 2.0, 2.0)), volume > 0)
    assert not predictor.masks(volume).any()


@pytest.mark.parametrize(("limit", "sums"), [(1.0, 1), (0.0, 0)])
def test_sums_are_kept_on_a_gpu_within_the_limit(networks, monkeypatch, limit, sums):
    """With a GPU that is none: TensorFlow's device is the processor here."""
    finished = []
    finish = DeviceAccumulator.finish
    monkeypatch.setattr(DeviceAccumulator, "finish", lambda a: (finished.append(a), finish(a)))
    volume = np.random.default_rng(0).normal(size=(3, 19, 13, 2)).astype(np.float32)
    settings = EvaluationSettings(device_memory=limit, window_batch=2)
    predictor = Predictor(networks[0], pipeline(), settings, target="subregions")
    expected = predictor.probabilities(volume)
    assert not finished
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind: ["one"])
    np.testing.assert_allclose(predictor.probabilities(volume), expected, atol=1e-6)
    assert len(finished) == sums


@pytest.mark.parametrize("shape", [(1, 3, 5, 7, 2), (2, 33, 17, 1)])
@pytest.mark.parametrize("view", ["whole", "reversed", "transposed", "part"])
def test_an_aligned_tensor_holds_the_values_of_any_view(shape, view):
    array = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    array = {
        "whole": array,
        "reversed": array[:, ::-1],
        "transposed": np.moveaxis(array, 1, 2),
        "part": array[:, 1:],
    }[view]
    expected = array.copy()
    tensor = aligned_tensor(array)
    array[...] = 0
    np.testing.assert_array_equal(tensor.numpy(), expected)
    # Kernels that need aligned memory end the process where it is not.
    np.testing.assert_allclose(tf.reduce_sum(tensor), expected.sum(), rtol=1e-4)


def test_the_memory_is_aligned_and_outlives_the_array():
    tensors = [aligned_tensor(np.full((n, 3), n, np.float32)) for n in range(1, 40)]
    for n, tensor in enumerate(tensors, start=1):
        assert np.asarray(tensor).ctypes.data % 64 == 0
        assert (tensor.numpy() == n).all()
