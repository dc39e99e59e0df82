import keras
import numpy as np
import pytest
import yaml

from kerasseg.config.model import ModelSettings
from kerasseg.errors import UserError
from kerasseg.models.build import build_network
from kerasseg.models.init_from import inflate_kernel, load_initial_weights
from kerasseg.models.unet import encoder_layers

SMALL = {"features": (4, 6), "bottleneck": 8, "decoder_blocks": 1, "encoder_blocks": 1}


def _settings(**changes) -> ModelSettings:
    return ModelSettings(**(SMALL | {"dimensions": 2} | changes))


def _network(settings: ModelSettings, channels: int = 2, seed: int = 0) -> keras.Model:
    """A network whose every weight is random: biases, scales and stored statistics, too."""
    keras.utils.set_random_seed(seed)
    network = build_network(settings, channels)
    random = np.random.default_rng(seed)
    for layer in network.layers:
        layer.set_weights(
            [
                random.uniform(0.5, 1.5, v.shape)
                if "variance" in w.name or "gamma" in w.name
                else v + random.normal(0, 0.2, v.shape)
                for v, w in zip(layer.get_weights(), layer.weights, strict=True)
            ]
        )
    return network


def _run(folder, network: keras.Model, settings: ModelSettings | None = None):
    """A run folder that holds `network`."""
    (folder / "checkpoints").mkdir(parents=True)
    network.save(folder / "checkpoints" / "best.keras")
    if settings:
        config = {
            "model": settings.model_dump(mode="json"),
            "pipeline": {"patch_size": [32] * settings.dimensions},
            "augment": {"preset": "none"},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def _weights(network: keras.Model) -> dict[str, list[np.ndarray]]:
    return {layer.name: layer.get_weights() for layer in network.layers if layer.weights}


def _same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_nothing_set_changes_nothing():
    network = _network(_settings())
    before = _weights(network)
    load_initial_weights(network, _settings())
    assert all(_same(before[name], after) for name, after in _weights(network).items())


def test_the_whole_network_starts_as_the_other_run_ended(tmp_path):
    """Named by the run's folder and by the file in it."""
    settings = _settings(norm="batch", attention_gates=True, residual="both")
    source, network = _network(settings, seed=1), _network(settings, seed=2)
    run = _run(tmp_path / "a", source)
    other = network.get_weights()
    image = np.random.default_rng(0).normal(size=(2, 11, 14, 2)).astype(np.float32)
    expected = np.asarray(source(image))
    for path in (run, run / "checkpoints" / "best.keras"):
        network.set_weights(other)
        load_initial_weights(network, settings.model_copy(update={"init_from": path}))
        np.testing.assert_array_equal(np.asarray(network(image)), expected)


def test_dropout_and_supervision_do_not_matter(tmp_path):
    source = _network(_settings(), seed=1)
    there = _run(tmp_path / "a", source)
    settings = _settings(init_from=there, dropout={"rate": 0.3, "place": "everywhere"})
    network = _network(settings)
    load_initial_weights(network, settings)
    expected = _weights(source)
    assert all(_same(expected[name], values) for name, values in _weights(network).items())


def test_the_encoder_alone_serves_another_target(tmp_path):
    source = _network(_settings(target="subregions"), seed=1)
    there = _run(tmp_path / "a", source)
    settings = _settings(target="labels", init_from=there, init_part="encoder", decoder_blocks=2)
    network = _network(settings, seed=2)
    before, expected = _weights(network), _weights(source)
    load_initial_weights(network, settings)
    encoder = {layer.name for layer in encoder_layers(network)}
    assert "bottleneck" in encoder and "encoder_1_conv_1" in encoder and "head" not in encoder
    for name, values in _weights(network).items():
        assert _same(values, expected[name] if name in encoder else before[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"norm": "none"}, marks=pytest.mark.all_only),  # as in the last one
        {"norm": "batch", "kernel": 5, "attention_gates": True},
        {"norm": "batch", "downsampling": "strided", "residual": "both"},
        {"norm": "none", "upsampling": "interpolate", "decoder_blocks": 2, "kernel": 1},
    ],
)
def test_an_inflated_network_sees_slices_in_a_constant_volume(tmp_path, changes):
    """Exact away from the ends, where zeros are padded before and behind the first slices."""
    flat = _settings(**changes)
    source = _network(flat, seed=1)
    deep = _settings(**changes, dimensions=3, init_from=_run(tmp_path / "a", source))
    network = _network(deep, seed=2)
    load_initial_weights(network, deep)
    image = np.random.default_rng(0).normal(size=(1, 13, 10, 2)).astype(np.float32)
    depth = 96
    volume = np.repeat(image[:, None], depth, axis=1)
    expected = np.asarray(keras.Model(source.inputs[0], source.get_layer("logits").output)(image))
    logits = np.asarray(keras.Model(network.inputs[0], network.get_layer("logits").output)(volume))
    middle = logits[0, depth // 2 - 6 : depth // 2 + 6]
    assert np.ptp(expected) > 0.1
    rounding = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(middle, np.repeat(expected, 12, axis=0), rtol=0, atol=rounding)
    if changes.get("kernel") != 1:
        assert np.abs(logits[0, 0] - expected[0]).max() > 1e-2


def test_the_encoder_is_inflated_alone(tmp_path):
    source = _network(_settings(), seed=1)
    settings = _settings(
        dimensions=3, target="regions", init_from=_run(tmp_path / "a", source), init_part="encoder"
    )
    network = _network(settings, seed=2)
    head = network.get_layer("head").get_weights()
    load_initial_weights(network, settings)
    kernel = network.get_layer("encoder_2_conv_1").get_weights()[0]
    flat = source.get_layer("encoder_2_conv_1").get_weights()[0]
    np.testing.assert_allclose(kernel.sum(axis=0), flat, rtol=1e-6)
    gamma = network.get_layer("bottleneck_norm_1").get_weights()[0]
    np.testing.assert_array_equal(gamma, source.get_layer("bottleneck_norm_1").get_weights()[0])
    assert _same(head, network.get_layer("head").get_weights())


@pytest.mark.parametrize(("size", "stride", "taps"), [(3, 1, 3), (3, 2, 3), (2, 2, 1), (4, 2, 2)])
def test_taps_are_those_that_meet_in_a_voxel(size, stride, taps):
    """Against Keras's own layers along one axis: stride > 1 and taps < size is a transposed one."""
    transposed = taps < size
    name = "Conv{}DTranspose" if transposed else "Conv{}D"
    options = {"strides": stride, "padding": "same", "use_bias": False}
    flat = getattr(keras.layers, name.format(2))(3, size, **options)
    deep = getattr(keras.layers, name.format(3))(3, size, **options)
    image = np.random.default_rng(0).normal(size=(1, 8, 10, 2)).astype(np.float32)
    volume = np.repeat(image[:, None], 12, axis=1)
    expected = np.asarray(flat(image))
    deep(volume)
    deep.set_weights([inflate_kernel(flat.get_weights()[0], size, taps=taps)])
    result = np.asarray(deep(volume))[0]
    for plane in result[2:-2]:
        np.testing.assert_allclose(plane, expected[0], atol=1e-5)


def test_3d_does_not_become_2d(tmp_path):
    there = _run(tmp_path / "a", _network(_settings(dimensions=3)))
    settings = _settings(init_from=there)
    with pytest.raises(UserError, match=r"is a 3-D network.*model\.dimensions=3"):
        load_initial_weights(_network(settings), settings)


def test_other_input_channels_are_named(tmp_path):
    settings = _settings(init_from=_run(tmp_path / "a", _network(_settings(), channels=4)))
    with pytest.raises(UserError, match=r"sees 4 input channel\(s\), this network 2.*modalities"):
        load_initial_weights(_network(settings), settings)


def test_another_target_is_sent_to_the_encoder(tmp_path):
    there = _run(tmp_path / "a", _network(_settings(target="binary")), _settings(target="binary"))
    settings = _settings(target="regions", init_from=there)
    network = _network(settings)
    before = _weights(network)
    with pytest.raises(UserError) as error:
        load_initial_weights(network, settings)
    message = str(error.value)
    assert "head: here 1 x 1 x 4 x 3 3, there 1 x 1 x 4 x 1 1" in message
    assert "model.target=binary" in message and "model.init_part=encoder" in message
    assert all(_same(before[name], after) for name, after in _weights(network).items())


@pytest.mark.parametrize(
    ("there", "here", "words"),
    [
        (
            {"features": (4, 8)},
            {},
            ("encoder_2_conv_1: here 3 x 3 x 4 x 6 6, there 3 x 3 x 4 x 8 8", "features=[4,8]"),
        ),
        ({"encoder_blocks": 2}, {}, ("encoder_1_conv_2: only there", "encoder_blocks=2")),
        ({}, {"norm": "none"}, ("encoder_1_norm_1: only there", "norm=instance")),
        ({}, {"activation": "elu"}, ("here Activation elu, there LeakyReLU", "leaky_relu")),
        (
            {"downsampling": "strided"},
            {},
            ("here Conv stride 1, there Conv stride 2", "downsampling=strided"),
        ),
        (
            {},
            {"attention_gates": True},
            ("decoder_1_gate_skip: only here", "attention_gates=False"),
        ),
    ],
)
def test_what_does_not_fit_is_named_with_the_setting_that_would(tmp_path, there, here, words):
    run = _run(tmp_path / "a", _network(_settings(**there)), _settings(**there))
    settings = _settings(**here, init_from=run)
    with pytest.raises(UserError) as error:
        load_initial_weights(_network(settings), settings)
    for word in words:
        assert word in str(error.value)


def test_a_missing_run_is_answered_with_those_that_are_there(tmp_path):
    _run(tmp_path / "runs" / "first", _network(_settings()))
    (tmp_path / "runs" / "stopped" / "checkpoints").mkdir(parents=True)
    for name in ("frist", "stopped", "frist.keras"):
        settings = _settings(init_from=tmp_path / "runs" / name)
        with pytest.raises(UserError, match=rf"no file .*{name}.*Runs in .*runs: first\."):
            load_initial_weights(_network(settings), settings)


def test_files_that_are_no_network_of_ours_are_refused(tmp_path):
    text = tmp_path / "text.keras"
    text.write_text("<html>")
    with pytest.raises(UserError, match=r"text\.keras cannot be read as a Keras network"):
        load_initial_weights(_network(_settings()), _settings(init_from=text))
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"other\.keras is not a network of kerasseg"):
        load_initial_weights(_network(_settings()), _settings(init_from=tmp_path / "other.keras"))


def test_a_run_trained_in_float16_starts_one_in_bfloat16(tmp_path):
    source = _network(_settings(), seed=1)
    settings = _settings(init_from=_run(tmp_path / "a", source))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = _network(settings, seed=2)
        load_initial_weights(network, settings)
    finally:
        keras.config.set_dtype_policy("float32")
    expected = _weights(source)
    assert all(_same(expected[name], values) for name, values in _weights(network).items())
