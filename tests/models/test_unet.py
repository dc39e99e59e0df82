import itertools

import keras
import numpy as np
import pytest

from kerasseg.config.model import ModelSettings
from kerasseg.models.unet import supervision_logits, unet
from kerasseg.private_hooks import weights_without_values

CLASSIC = {
    "dimensions": 2,
    "target": "binary",
    "features": (64, 128, 256, 512),
    "bottleneck": 1024,
    "norm": "batch",
    "activation": "relu",
    "upsampling": "interpolate",
    "dropout": {"rate": 0.5},
}
RESENC_M = {
    "target": "regions",
    "features": (32, 64, 128, 256, 320),
    "bottleneck": 320,
    "encoder_blocks": (1, 3, 4, 6, 6, 6),
    "decoder_blocks": 1,
    "residual": "encoder",
    "downsampling": "strided",
}
TINY = {"features": (4, 6), "bottleneck": 8}


def make(channels=2, **settings) -> keras.Model:
    return unet(ModelSettings.model_validate(settings), channels)


def shapes_only(channels, **settings) -> keras.Model:
    """The network without values in its weights, which take long to draw when they are many."""
    with weights_without_values():
        return make(channels, **settings)


def kinds(network, kind):
    return [layer for layer in network.layers if isinstance(layer, kind)]


def names(network):
    return [layer.name for layer in network.layers]


def test_the_described_network_has_its_parameters():
    model = shapes_only(4)
    assert model.count_params() == 22_583_875
    classes = [type(layer).__name__ for layer in model.layers]
    assert classes.count("Conv3D") == 2 * 9 + 1 and classes.count("Conv3DTranspose") == 4
    assert classes.count("MaxPooling3D") == 4 and classes.count("GroupNormalization") == 18
    assert classes.count("LeakyReLU") == 18
    slopes = {layer.negative_slope for layer in kinds(model, keras.layers.LeakyReLU)}
    assert slopes == {0.01}
    assert {layer.epsilon for layer in kinds(model, keras.layers.GroupNormalization)} == {1e-5}
    assert model.name == "unet_3d" and names(model)[:4] == [
        "image",
        "encoder_1_conv_1",
        "encoder_1_norm_1",
        "encoder_1_activation_1",
    ]
    assert names(model)[-4:] == ["decoder_1", "head", "logits", "probabilities"]


def test_the_2d_network_is_the_same_one_with_flat_kernels():
    flat, deep = shapes_only(4, dimensions=2), shapes_only(4)
    assert names(flat) == names(deep) and flat.name == "unet_2d"
    pairs = list(zip(flat.layers, deep.layers, strict=True))
    assert {(type(a).__name__, type(b).__name__) for a, b in pairs} >= {
        ("Conv2D", "Conv3D"),
        ("Conv2DTranspose", "Conv3DTranspose"),
        ("MaxPooling2D", "MaxPooling3D"),
    }
    for a, b in pairs:
        for small, large in zip(a.weights, b.weights, strict=True):
            assert small.shape == (large.shape[1:] if len(large.shape) == 5 else large.shape)
    widths = (4, 32, 64, 128, 256, 512)
    encoder = sum(9 * (a * b + b * b) + 6 * b for a, b in itertools.pairwise(widths))
    decoder = sum(4 * a * b + 27 * a * a + 7 * a for a, b in itertools.pairwise(widths[1:]))
    assert flat.count_params() == encoder + decoder + 32 * 3 + 3 == 7_766_339


def test_the_residual_encoder_is_nnu_nets():
    """Counted in dynamic-network-architectures 0.4.4: 102,353,167 parameters of

    ResidualEncoderUNet(4, 6, [32, 64, 128, 256, 320, 320], Conv3d, 3, [1, 2, 2, 2, 2, 2],
    [1, 3, 4, 6, 6, 6], 3, [1] * 5, True, InstanceNorm3d, {"affine": True}, nonlin=LeakyReLU).

    With or without deep supervision it holds the heads of the four lower levels, which ours has in
    training only.
    """
    network = shapes_only(4, **RESENC_M)
    assert network.count_params() == 102_350_851
    with weights_without_values():
        heads = supervision_logits(network, 4, 3)
    supervised = keras.Model(network.input, [*network.outputs, *heads])
    assert supervised.count_params() == 102_353_167
    # 31 blocks: a stem, 1 + 3 + 4 + 6 + 6 + 6 of two convolutions, five single ones of the decoder.
    assert len(kinds(network, keras.layers.Add)) == 26
    assert len(kinds(network, keras.layers.Conv3D)) == 1 + 52 + 4 + 5 + 1


def test_the_classic_2d_network_has_31_million():
    network = shapes_only(4, **CLASSIC)
    assert network.count_params() == 31_055_873
    # Without norms it is the Keras U-Net of github.com/zhixuhao/unet (31,031,685), but for that
    # one's last layers: 3x3 to two channels, then 1x1 to one.
    plain = shapes_only(1, **{**CLASSIC, "norm": "none"})
    assert plain.count_params() - (64 + 1) + (9 * 64 * 2 + 2) + (2 + 1) == 31_031_685
    assert [layer.name for layer in kinds(network, keras.layers.Dropout)] == ["bottleneck_dropout"]


def test_a_residual_block_adds_its_input():
    """With the second norm's scale and shift at 0 a block is the activation of its skip."""
    network = make(**TINY, residual="encoder", downsampling="strided", encoder_blocks=1)
    for name in ("encoder_1_block_1", "encoder_2_block_1"):
        network.get_layer(f"{name}_norm_2").set_weights([np.zeros(2 * int(name[8]) + 2)] * 2)
    first, second = "encoder_1_block_1_activation_2", "encoder_2_block_1_activation_2"
    wanted = ("encoder_stem_activation", first, second)
    probe = keras.Model(network.input, [network.get_layer(name).output for name in wanted])
    image = np.random.default_rng(0).normal(size=(1, 8, 4, 12, 2)).astype(np.float32)
    stem, same, halved = (np.asarray(x) for x in probe(image))

    def leaky(x):
        return np.where(x > 0, x, 0.01 * x)

    np.testing.assert_allclose(same, leaky(stem), atol=1e-6)
    pooled = same.reshape(1, 4, 2, 2, 2, 6, 2, 4).mean(axis=(2, 4, 6))
    (kernel,) = network.get_layer("encoder_2_block_1_skip_conv").get_weights()
    skip = pooled @ kernel[0, 0, 0]
    mean, variance = skip.mean(axis=(1, 2, 3)), skip.var(axis=(1, 2, 3))
    np.testing.assert_allclose(halved, leaky((skip - mean) / np.sqrt(variance + 1e-5)), atol=1e-4)


def test_strides_and_poolings_halve_alike():
    for way, poolings in (("maxpool", 2), ("strided", 0)):
        network = make(**TINY, downsampling=way)
        assert len(kinds(network, keras.layers.MaxPooling3D)) == poolings
        strides = [layer.strides[0] for layer in kinds(network, keras.layers.Conv3D)]
        assert strides.count(2) == (0 if poolings else 2)
        probe = keras.Model(network.input, network.get_layer("bottleneck").output)
        assert probe(np.zeros((1, 8, 4, 12, 2))).shape == (1, 2, 1, 3, 8)
    assert network.get_layer("encoder_2_conv_1").strides == (2, 2, 2)
    assert network.get_layer("bottleneck_conv_1").strides == (2, 2, 2)


def test_blocks_can_be_counted_per_level():
    network = make(**TINY, encoder_blocks=(1, 2, 3), decoder_blocks=(3, 1))
    for name, count in (
        ("encoder_1", 1),
        ("encoder_2", 2),
        ("bottleneck", 3),
        ("decoder_1", 3),
        ("decoder_2", 1),
    ):
        assert sum(layer.startswith(f"{name}_conv_") for layer in names(network)) == count
    residual = make(**TINY, encoder_blocks=(1, 2, 3), decoder_blocks=(3, 1), residual="both")
    for name, count in (("bottleneck", 3), ("decoder_1", 3), ("decoder_2", 1)):
        assert (
            sum(n.startswith(f"{name}_block_") and n.endswith("_add") for n in names(residual))
            == count
        )


@pytest.mark.parametrize(
    ("norm", "kind", "groups"),
    [("instance", "GroupNormalization", {4, 6, 8}), ("batch", "BatchNormalization", None),
     ("group", "GroupNormalization", {2}), ("none", None, None)],
)  # fmt: skip
def test_norms(norm, kind, groups):
    settings = {"norm_groups": 2} if norm == "group" else {}
    network = make(**TINY, norm=norm, **settings)
    found = [layer for layer in network.layers if "_norm_" in layer.name]
    assert len(found) == (10 if kind else 0)
    assert {type(layer).__name__ for layer in found} == ({kind} if kind else set())
    if groups:  # as many as channels: instance norm
        assert {layer.groups for layer in found} == groups


@pytest.mark.parametrize("name", ["relu", "elu", "silu", "gelu"])
def test_activations(name):
    network = make(**TINY, activation=name)
    found = [layer for layer in network.layers if "_activation_" in layer.name]
    assert len(found) == 10
    values = np.linspace(-3, 3, 7, dtype=np.float32)
    for layer in found:
        np.testing.assert_array_equal(layer(values), getattr(keras.activations, name)(values))


def test_the_slope_and_the_kernel():
    network = make(**TINY, negative_slope=0.2, kernel=5)
    slopes = {layer.negative_slope for layer in kinds(network, keras.layers.LeakyReLU)}
    assert slopes == {0.2}
    sizes = {x.name: x.kernel_size[0] for x in kinds(network, keras.layers.Conv3D)}
    assert sizes.pop("head") == 1 and set(sizes.values()) == {5}


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("bottleneck", {"bottleneck"}),
        ("encoder", {"encoder_1", "encoder_2", "bottleneck"}),
        ("decoder", {"decoder_1", "decoder_2"}),
        ("everywhere", {"encoder_1", "encoder_2", "bottleneck", "decoder_1", "decoder_2"}),
    ],
)
def test_dropout_is_where_it_should_be_and_only_in_training(place, expected):
    network = make(**TINY, dropout={"rate": 0.4, "place": place})
    layers = kinds(network, keras.layers.Dropout)
    assert {layer.name for layer in layers} == {f"{name}_dropout" for name in expected}
    assert {layer.rate for layer in layers} == {0.4}
    image = np.random.default_rng(0).normal(size=(1, 8, 4, 12, 2)).astype(np.float32)
    np.testing.assert_array_equal(network(image), network(image, training=False))
    first, second = (np.asarray(network(image, training=True)) for _ in range(2))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("target", "channels", "activation"),
    [("labels", 4, "softmax"), ("subregions", 3, "sigmoid"), ("regions", 3, "sigmoid"),
     ("binary", 1, "sigmoid")],
)  # fmt: skip
def test_the_target_makes_the_output(target, channels, activation):
    network = make(**TINY, target=target)
    probe = keras.Model(
        network.input, [network.get_layer("logits").output, network.get_layer("head").output]
    )
    image = np.random.default_rng(0).normal(size=(1, 5, 4, 7, 2)).astype(np.float32)
    logits, head = probe(image)
    np.testing.assert_array_equal(logits, head[:, :5, :4, :7])
    expected = getattr(keras.activations, activation)(logits)
    assert expected.shape[-1] == channels
    np.testing.assert_allclose(network(image), expected, atol=1e-6)


def test_instance_norm_makes_samples_independent():
    """A batch of two gives what each gives alone: no statistic is shared between samples."""
    model = make(1, features=(4,), bottleneck=6)
    image = np.random.default_rng(0).normal(size=(2, 6, 4, 8, 1)).astype(np.float32)
    image[1] *= 50
    together = np.asarray(model(image))
    for i in range(2):
        np.testing.assert_allclose(together[i], np.asarray(model(image[i : i + 1]))[0], atol=1e-4)
