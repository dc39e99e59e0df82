"""Lists of transforms on patches: replayable, in a dataset, harmless to labels."""

import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config import augment as settings
from kerasseg.config.augment import PRESETS, AugmentSettings, transforms_of
from kerasseg.config.load import load_experiment
from kerasseg.errors import UserError
from kerasseg.pipeline.augment.compose import augment
from kerasseg.pipeline.augment.patch import Patch
from kerasseg.pipeline.augment.spatial import rotate90

EVERY = tuple(
    kind(p=1.0)
    for kind in (
        settings.Gamma,
        settings.Brightness,
        settings.Scaling,
        settings.Contrast,
        settings.GaussianNoise,
        settings.RicianNoise,
        settings.Blur,
        settings.LowResolution,
        settings.BiasField,
        settings.Ghosting,
        settings.ChannelDropout,
        settings.CoarseDropout,
        settings.ChannelCopy,
    )
)


def scan(shape, channels):
    random = np.random.default_rng(0)
    image = random.normal(size=(*shape, channels)).astype(np.float16)
    image[tuple(slice(0, n // 3) for n in shape)] = 0
    return tf.constant(image), tf.constant(random.integers(0, 4, shape), tf.uint8)


@pytest.mark.parametrize(
    ("transforms", "shape", "channels", "across"),
    [
        # The presets are parts of EVERY.
        pytest.param(PRESETS["light"], (9, 12, 10), 2, None, marks=pytest.mark.all_only),
        pytest.param(PRESETS["nnunet"], (9, 12, 10), 2, None, marks=pytest.mark.all_only),
        (PRESETS["classic_2d"], (19, 26), 2, 0),
        pytest.param(PRESETS["nnunet"], (19, 26), 6, 1, marks=pytest.mark.all_only),
        (EVERY[::2], (9, 12, 10), 2, None),
        # A preset in 2-D stands above, and half of them in 3-D; each alone is tested below.
        pytest.param(EVERY, (9, 12, 10), 2, None, marks=pytest.mark.all_only),
        pytest.param(EVERY, (19, 26), 6, 2, marks=pytest.mark.all_only),
    ],
)
def test_a_list_is_replayed_by_its_seed_in_a_dataset_too(transforms, shape, channels, across):
    image, label = scan(shape, channels)
    patch = Patch(shape, 2, channels // 2, across)

    def apply(seed):
        return augment(transforms, image, label, patch, seed)

    seeds = tf.constant([[0, i] for i in range(4)])
    dataset = tf.data.Dataset.from_tensor_slices(seeds)
    mapped = list(dataset.map(apply, num_parallel_calls=3))
    for seed, (pixels, ids) in zip(seeds, mapped, strict=True):
        again, same_ids = apply(seed)
        np.testing.assert_allclose(pixels, again, atol=4e-3)
        np.testing.assert_array_equal(ids, same_ids)
        assert pixels.dtype == tf.float16 and ids.dtype == tf.uint8
        assert np.isfinite(pixels.numpy()).all()
        assert set(np.unique(ids)) <= set(np.unique(label)), "never a new value"
    assert len({pixels.numpy().tobytes() for pixels, _ in mapped}) > 2


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        # Volumes and slices take turns: what a transform does is the same code for both.
        pytest.param(
            transform,
            shape,
            id=f"{type(transform).__name__}-{len(shape)}d",
            marks=() if (index + len(shape)) % 2 else pytest.mark.all_only,
        )
        for index, transform in enumerate(EVERY)
        for shape in ((9, 12, 10), (19, 26))
    ],
)
def test_intensities_leave_the_label_and_air_alone_and_happen_as_often_as_asked(transform, shape):
    image, label = scan(shape, 2)
    patch = Patch(shape, 2, 1, None if len(shape) == 3 else 0)
    changed, same = augment([transform], image, label, patch, tf.constant([0, 1]))
    np.testing.assert_array_equal(same, label)
    assert not changed.numpy()[image.numpy() == 0].any()
    assert not np.array_equal(changed, image)
    never = transform.model_copy(update={"p": 0.0})
    np.testing.assert_array_equal(
        augment([never], image, label, patch, tf.constant([0, 1]))[0], image
    )
    rarely = transform.model_copy(update={"p": 0.3})
    draw = tf.function(lambda seed: augment([rarely], image, label, patch, seed)[0])
    happened = [not np.array_equal(draw(tf.constant([2, i])), image) for i in range(60)]
    assert 0.1 < np.mean(happened) < 0.5


def test_neighbouring_slices_change_like_their_modality():
    image, label = scan((19, 26), 2)
    stacked = tf.concat([image, image, image], -1)
    alike = (settings.Gamma(p=1.0), settings.Blur(p=1.0, p_channel=1.0), settings.Scaling(p=1.0))
    seed = tf.constant([1, 5])
    one, _ = augment(alike, image, label, Patch((19, 26), 2, 1, 0), seed)
    three, _ = augment(alike, stacked, label, Patch((19, 26), 2, 3, 0), seed)
    np.testing.assert_allclose(three, np.concatenate([one] * 3, -1), atol=2e-3)


@pytest.mark.parametrize("axes", [(0, 1), (1, 2), (2, 0)])
def test_quarter_turns_are_those_of_numpy(axes):
    shape = [9, 9, 9]
    shape[3 - sum(axes)] = 5
    image, label = scan(tuple(shape), 2)
    for quarters in range(4):
        turned, turned_label = rotate90(image, label, axes, tf.constant(quarters))
        np.testing.assert_array_equal(turned, np.rot90(image, quarters, axes))
        np.testing.assert_array_equal(turned_label, np.rot90(label, quarters, axes))


def test_axes_are_named_by_the_volume():
    names = ("depth", "height", "width")
    assert Patch((1, 1, 1), 1).axes(("width", "depth")) == (2, 0)
    for across, expected in enumerate([(0, 1), (0, 1), (0, 1)]):
        assert Patch((1, 1), 1, across=across).axes(names) == expected
    assert Patch((1, 1), 1, across=1).axes(("width",)) == (1,)
    assert Patch((1, 1), 1, across=1).axes(("height",)) == ()


def test_none_changes_nothing():
    image, label = scan((12, 10), 2)
    none = transforms_of(AugmentSettings())
    assert augment(none, image, label, Patch((12, 10), 2, 1, 0), tf.constant([0, 0])) == (
        image,
        label,
    )


def test_a_list_in_a_config():
    text = "augment.transforms=[{flip: {axes: [width]}}, {blur: {p: 0.1, sigma: [0.2, 0.4]}}]"
    chosen = transforms_of(load_experiment(None, [text]).augment)
    assert chosen == (settings.Flip(axes=("width",)), settings.Blur(p=0.1, sigma=(0.2, 0.4)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("[{blurr: {}}]", "blur"),
        ("[{blur: {p: 1.5}}]", "1"),
        ("[{blur: {sigma: [1.0, 0.5]}}]", "the first limit is above the second"),
        ("[{}]", "names one transform"),
        ("[{blur: {}, flip: {}}]", "names one transform"),
        ("[{spatial: {}}, {spatial: {}}]", "one resampling"),
    ],
)
def test_a_bad_list_is_refused(value, words):
    with pytest.raises(UserError, match="augment") as error:
        load_experiment(None, [f"augment.transforms={value}"])
    assert words in str(error.value)


def test_a_list_beside_a_preset_is_refused():
    with pytest.raises(UserError, match="exclude each other"):
        load_experiment(None, ["augment.preset=light", "augment.transforms=[{flip: {}}]"])


@pytest.mark.parametrize(
    "overrides",
    [
        ["augment.transforms=[{rotate90: {axes: [depth, height]}}]"],
        ["augment.transforms=[{rotate90: {axes: [width, width]}}]"],
        [
            "augment.transforms=[{rotate90: {axes: [depth, width]}}]",
            "model.dimensions=2",
            "pipeline.patch_size=[32,32]",
        ],
    ],
)
def test_quarter_turns_need_a_square(overrides):
    size = "pipeline.patch_size=[16,32,32]"
    with pytest.raises(UserError, match=r"rotate90 .* needs two axes of the same size"):
        load_experiment(None, [size, *overrides])
    fine = ["pipeline.patch_size=[16,32,32]", "augment.transforms=[{rotate90: {}}]"]
    assert load_experiment(None, fine).augment.transforms
