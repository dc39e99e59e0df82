import hashlib
import http.server
import inspect
import re
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg import pretrained_weights
from kerasseg.config.model import ModelSettings
from kerasseg.errors import UserError
from kerasseg.models import pretrained_unet as loading
from kerasseg.models.build import build_network
from kerasseg.models.pretrained_unet import (
    PRETRAINED_ENCODERS,
    inflate_stem,
    load_encoder_weights,
)
from kerasseg.models.unet import encoder_layers
from kerasseg.pretrained_weights import KNOWN_WEIGHTS, imagenet_file
from kerasseg.private_hooks import weights_without_values
from tests.models.check_model import check_model

OF_KERAS = ("resnet50v2", "efficientnetv2b0", "efficientnetv2s", "mobilenetv2", "densenet121")
ENCODERS = (*OF_KERAS, "efficientnetlite0")

STEPS = 16
"""Of training: after so many the statistics are 0.9^16, 19 %, those of the beginning."""

PARAMETERS = {
    "resnet50v2": (23_567_936, 28_206_595),
    "efficientnetv2b0": (5_919_600, 10_771_763),
    "efficientnetv2s": (20_331_576, 25_932_539),
    "mobilenetv2": (2_258_272, 6_976_803),
    "densenet121": (7_040_640, 11_404_867),
    "efficientnetlite0": (2_998_592, 7_010_563),
}
"""Of the encoder and of the U-Net with the default decoder; 4 input channels, subregions."""


def _settings(encoder: str = "mobilenetv2", weights: object = "none", **changes) -> ModelSettings:
    features = changes.pop("decoder_features", (4, 4, 4, 4, 4))
    pretrained = {"encoder": encoder, "weights": str(weights), "decoder_features": features}
    changes = {"decoder_blocks": 1} | changes
    return ModelSettings(dimensions=2, network="pretrained_unet", pretrained=pretrained, **changes)


def _randomise(network: keras.Model, seed: int = 0) -> None:
    """Give norms statistics, scales and shifts that are not those of a fresh layer."""
    random = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([random.uniform(0.8, 1.2, v.shape) for v in layer.get_weights()])


SMALL = ("mobilenetv2", "efficientnetlite0")
"""Encoders whose tests run in each `make test`; the larger ones repeat them in `make test-all`."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=() if name in SMALL else pytest.mark.all_only) for name in ENCODERS
    ],
)
def encoder(request) -> str:
    """Each encoder in turn."""
    return request.param


@pytest.fixture(scope="module")
def network(encoder: str) -> keras.Model:
    """Its U-Net for 4 channels, with random weights and a narrow decoder."""
    keras.utils.set_random_seed(0)
    return build_network(_settings(encoder), 4)


@pytest.fixture(scope="module")
def rgb() -> keras.Model:
    """MobileNetV2 for 3 channels as keras.applications makes it, with norms that tell."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2(
        include_top=False, weights=None, input_shape=(None, None, 3)
    )
    _randomise(model)
    return model


@pytest.fixture(scope="module")
def weight_file(rgb: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights as Keras 3 writes them."""
    path = tmp_path_factory.mktemp("weights") / "mobilenet.weights.h5"
    rgb.save_weights(path)
    return path


@pytest.fixture(scope="module")
def old_weight_file(rgb: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in the format of the files that Keras downloads."""
    folder = tmp_path_factory.mktemp("weights")
    rgb.save(folder / "whole.h5")
    path = folder / "mobilenet.h5"
    with h5py.File(folder / "whole.h5") as whole, h5py.File(path, "w") as file:
        group = whole["model_weights"]
        file.attrs.update(group.attrs)
        for name in group:
            group.copy(name, file)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keras's cache of weights, empty, without a network."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    monkeypatch.setattr(socket, "create_connection", _no_network)
    return tmp_path / "home" / "models"


def _no_network(*arguments: object, **options: object) -> None:
    raise OSError("the network was touched")


def test_the_encoders_are_those_of_the_settings():
    annotation = type(_settings().pretrained).model_fields["encoder"].annotation
    assert set(PRETRAINED_ENCODERS) == set(annotation.__args__) == set(ENCODERS)
    assert set(ENCODERS) <= set(KNOWN_WEIGHTS)


@pytest.mark.parametrize("name", ENCODERS)
def test_parameters(name):
    settings = _settings(name, decoder_features=(16, 32, 64, 128, 256), decoder_blocks=2)
    with weights_without_values():
        network = build_network(settings, 4)
    own = sum(layer.count_params() for layer in encoder_layers(network))
    assert (own, network.count_params()) == PARAMETERS[name]


def test_skips_are_the_last_layers_of_their_resolution(encoder, network):
    height, width = 64, 96
    image = np.zeros((1, height, width, 4), np.float32)
    skips = [network.get_layer(name) for name in PRETRAINED_ENCODERS[encoder].skips]
    outputs = [layer.output for layer in skips] + [network.get_layer("bottleneck").output]
    shapes = [value.shape for value in keras.Model(network.inputs[0], outputs)(image)]
    for level, shape in enumerate(shapes, start=1):
        assert shape[1:3] == (height // 2**level, width // 2**level), (level, shape)
    for layer in skips:
        consumers = _consumers(layer)
        assert len(consumers) == 1 and consumers[0].strides in (2, (2, 2)), layer.name


def test_every_norm_has_our_momentum(encoder, network):
    """Whoever designed it: our statistics are those of the last dozens of updates."""
    norms = [n for n in network.layers if isinstance(n, keras.layers.BatchNormalization)]
    assert len(norms) > 20 and {norm.momentum for norm in norms} == {0.9}


@pytest.mark.all_only  # what it takes is the momentum of every norm, above
@pytest.mark.parametrize("chosen", ENCODERS)
def test_trained_briefly_it_predicts_as_it_did_in_training(chosen):
    """Running statistics that lag behind would let it predict as if it had not been trained."""
    keras.utils.set_random_seed(0)
    network = build_network(_settings(chosen, norm="batch", target="binary"), 4)
    masks = np.zeros((4, 32, 32, 1), np.float32)
    masks[:, :, 16:] = 1
    noise = np.random.default_rng(0).normal(0, 0.2, (4, 32, 32, 4))
    image = tf.constant(2 * masks - 1 + noise, tf.float32)

    @tf.function(autograph=False)
    def step():
        with tf.GradientTape() as tape:
            trained = network(image, training=True)
            loss = tf.reduce_mean(keras.losses.binary_crossentropy(masks, trained))
        gradients = tape.gradient(loss, network.trainable_variables)
        for variable, gradient in zip(network.trainable_variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
        return trained

    for _ in range(STEPS):
        trained = step()
    predicted = np.asarray(network(image, training=False))
    assert np.mean((np.asarray(trained) > 0.5) == masks) > 0.9
    assert np.mean((predicted > 0.5) == masks) > 0.9


def _consumers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers of the encoder that read `layer`, looking through padding."""
    found = []
    for node in layer._outbound_nodes:
        if isinstance(node.operation, keras.layers.ZeroPadding2D):
            found += _consumers(node.operation)
        elif not node.operation.name.startswith("decoder_"):
            found.append(node.operation)
    return found


def test_layers_of_the_contract(encoder, network):
    names = [layer.name for layer in network.layers]
    expected = [f"decoder_{level}" for level in range(1, 6)]
    assert {"image", "bottleneck", *expected, "head", "logits", "probabilities"} <= set(names)
    for name in ("bottleneck", *expected):
        assert isinstance(network.get_layer(name), keras.layers.Identity)
    assert not any(isinstance(layer, keras.Model) for layer in network.layers), "flat"
    assert "decoder_1_concatenate" not in names and "decoder_2_concatenate" in names
    inside = {layer.name for layer in encoder_layers(network)}
    assert {n for n in names if n.startswith(("decoder_", "head"))}.isdisjoint(inside)
    # Nothing is lost on the way: all weights are either the encoder's or the decoder's.
    for layer in network.layers:
        if layer.weights:
            assert (layer.name in inside) != layer.name.startswith(("decoder_", "head"))


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
def test_inflated_stem(channels):
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 8)).astype(np.float32)
    inflated = inflate_stem(kernel, channels)
    assert inflated.shape == (3, 3, channels, 8) and inflated.dtype == np.float32
    np.testing.assert_allclose(inflated.sum(axis=2), kernel.sum(axis=2), atol=1e-6)
    if channels == 3:
        assert inflated is kernel
    else:
        assert (inflated == inflated[:, :, :1]).all()


def test_equal_channels_give_the_stem_the_response_of_grey(encoder, network, monkeypatch):
    """Each of the five kinds of stem; all other weights are copied as they are."""
    source = PRETRAINED_ENCODERS[encoder].build(input_shape=(None, None, 3))
    _randomise(source)
    monkeypatch.setattr(loading, "_rgb_network", lambda chosen, weights: source)
    load_encoder_weights(network, encoder, "imagenet")
    stem = next(layer for layer in source.layers if isinstance(layer, keras.layers.Conv2D))
    grey = np.random.default_rng(0).normal(size=(1, 64, 32, 1)).astype(np.float32)
    here, there = (
        np.asarray(keras.Model(m.inputs[0], m.get_layer(stem.name).output)(np.repeat(grey, c, 3)))
        for m, c in ((network, 4), (source, 3))
    )
    assert there.std() > 0.01
    np.testing.assert_allclose(here, there, atol=1e-5)
    _assert_copied(source, network, all_but=stem.name)


def _assert_copied(source: keras.Model, network: keras.Model, all_but: str = "") -> None:
    """Every weight of `source` stands in `network`; of that one layer the kernel may differ."""
    for layer in source.layers:
        if layer.weights:
            first = 1 if layer.name == all_but else 0
            values = network.get_layer(layer.name).get_weights()
            for a, b in zip(layer.get_weights()[first:], values[first:], strict=True):
                np.testing.assert_array_equal(a, b, err_msg=layer.name)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        ("weight_file", 3),
        # The next test reads such a file, and the stem of other channels is tested above.
        pytest.param("old_weight_file", 5, marks=pytest.mark.all_only),
    ],
)
def test_a_local_file_gives_the_encoder_of_keras(request, rgb, kind, channels):
    path = request.getfixturevalue(kind)
    network = build_network(_settings(weights=path), channels)
    grey = np.random.default_rng(0).normal(size=(2, 64, 32, 1)).astype(np.float32)
    end = keras.Model(network.inputs[0], network.get_layer("bottleneck").output)
    expected = np.asarray(rgb(np.repeat(grey, 3, axis=3)))
    assert expected.std() > 0.01
    result = np.asarray(end(np.repeat(grey, channels, axis=3)))
    np.testing.assert_allclose(result, expected, atol=1e-4)
    if channels == 3:
        colours = np.random.default_rng(1).normal(size=(2, 64, 32, 3)).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(end(colours)), np.asarray(rgb(colours)))


def test_a_cached_file_is_used_without_a_network(cache, rgb, old_weight_file):
    cache.mkdir(parents=True)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    (cache / name).write_bytes(old_weight_file.read_bytes())
    _assert_copied(rgb, build_network(_settings(weights="imagenet"), 3))


def test_a_cached_file_must_be_the_one_keras_knows(cache, monkeypatch):
    """EfficientNetV2's has a checksum; one that does not match is not trusted, and not deleted.

    Its first two stages are enough for that.
    """
    module = inspect.getmodule(keras.applications.EfficientNetV2B0)
    stages = module.DEFAULT_BLOCKS_ARGS["efficientnetv2-b0"][:2]
    monkeypatch.setitem(module.DEFAULT_BLOCKS_ARGS, "efficientnetv2-b0", stages)
    encoder = PRETRAINED_ENCODERS["efficientnetv2b0"]
    source = encoder.build(input_shape=(None, None, 3))
    cache.mkdir(parents=True)
    path = cache / KNOWN_WEIGHTS["efficientnetv2b0"].file
    source.save(path)
    content = path.read_bytes()
    with pytest.raises(UserError, match=r"efficientnetv2-b0_notop\.h5 is not the one Keras knows"):
        loading._rgb_network("efficientnetv2b0", "imagenet")
    assert path.read_bytes() == content and list(cache.iterdir()) == [path]

    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(module.WEIGHTS_HASHES, "b0", ("", md5))
    _assert_copied(source, loading._rgb_network("efficientnetv2b0", "imagenet"))


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2",
        pytest.param("densenet121", marks=pytest.mark.all_only),
        pytest.param("resnet50v2", marks=pytest.mark.all_only),
    ],
)
def test_offline_the_error_says_what_to_fetch_and_where_to_put_it(cache, monkeypatch, name):
    module = inspect.getmodule(PRETRAINED_ENCODERS[name].constructor)
    if name == "resnet50v2":  # its addresses are those of the first version
        module = inspect.getmodule(keras.applications.ResNet50)
    base = getattr(module, "BASE_WEIGHTS_PATH", None) or module.BASE_WEIGHT_PATH
    started = time.monotonic()
    with pytest.raises(UserError) as error:
        loading._rgb_network(name, "imagenet")
    assert time.monotonic() - started < 30
    message = str(error.value)
    url = re.search(rf"Fetch ({re.escape(base)}\S+no_?top\.h5) ", message)
    assert url, message
    assert Path(url[1]).name == KNOWN_WEIGHTS[name].file
    assert f"save it as {cache / Path(url[1]).name}" in message
    assert "model.pretrained.weights" in message and "none" in message
    assert "the network was touched" in message
    assert not list(cache.iterdir())


def test_a_network_that_swallows_packets_is_given_up_within_seconds(cache, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(urllib.request, "urlopen", lambda *a, **o: released.wait(60))
    monkeypatch.setattr(pretrained_weights, "_SECONDS", 0.3)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 0\.3 s"):
        imagenet_file("weights.h5", "http://host.invalid/weights.h5", None)
    assert time.monotonic() - started < 5 and socket.getdefaulttimeout() is None
    released.set()


class _Server(http.server.BaseHTTPRequestHandler):
    """Sends `content`, promising `promised` bytes; remembers what it was asked for."""

    content, promised, asked = b"", 0, ""

    def do_GET(self) -> None:
        _Server.asked = self.path
        if "missing" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.promised))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Address of a server, an empty cache beside it."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    _Server.content = np.random.default_rng(0).bytes(3 << 20)
    _Server.promised = len(_Server.content)
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()


def test_a_download_is_kept_in_the_cache(server, tmp_path):
    md5 = hashlib.md5(_Server.content).hexdigest()
    path = imagenet_file("weights.h5", f"{server}/weights.h5", md5)
    assert path == tmp_path / "home" / "models" / "weights.h5"
    assert path.read_bytes() == _Server.content and list(path.parent.iterdir()) == [path]
    _Server.asked = ""
    assert imagenet_file("weights.h5", f"{server}/weights.h5", md5) == path
    assert _Server.asked == "", "downloaded twice"
    path.write_bytes(_Server.content[:100])  # half a file, of another program
    assert imagenet_file("weights.h5", f"{server}/weights.h5", md5).read_bytes() == _Server.content


def test_several_runs_may_download_at_the_same_time(server, tmp_path):
    md5 = hashlib.md5(_Server.content).hexdigest()
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda i: imagenet_file("w.h5", f"{server}/w.h5", md5), range(4)))
    assert {path.read_bytes() for path in paths} == {_Server.content}
    assert list(paths[0].parent.iterdir()) == [paths[0]]


def test_a_cache_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.raises(UserError, match=r"Writing .*w\.h5 failed.*KERAS_HOME=FOLDER"):
        imagenet_file("w.h5", f"{server}/w.h5", None)


def test_a_file_of_the_cache_that_is_another_networks_is_to_be_removed(cache):
    cache.mkdir(parents=True)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
    image = keras.Input((None, None, 3))
    keras.Model(image, keras.layers.Conv2D(2, 3)(image)).save(cache / name)
    with pytest.raises(UserError, match=rf"{name} does not hold .*remove it, and it is downloaded"):
        loading._rgb_network("mobilenetv2", "imagenet")


def test_proxies_of_the_environment_are_used(server, monkeypatch):
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its birth
    monkeypatch.setenv("http_proxy", server)
    path = imagenet_file("weights.h5", "http://host.invalid/weights.h5", None)
    assert _Server.asked == "http://host.invalid/weights.h5"
    assert path.read_bytes() == _Server.content


@pytest.mark.parametrize(
    ("name", "more", "md5", "reason"),
    [
        ("weights.h5", 10, None, r"retrieval incomplete"),
        ("weights.h5", 0, "0" * 32, r"hash does not match the provided value of 0000"),
        ("missing.h5", 0, None, r"404 -- Not Found"),
    ],
)
def test_a_failed_download_leaves_nothing_behind(server, tmp_path, name, more, md5, reason):
    _Server.promised += more
    with pytest.raises(UserError, match=reason):
        imagenet_file(name, f"{server}/{name}", md5)
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


@pytest.fixture(scope="module")
def spoilt_network() -> keras.Model:
    return PRETRAINED_ENCODERS["mobilenetv2"].build(input_shape=(None, None, 3))


@pytest.fixture
def spare(spoilt_network: keras.Model, monkeypatch: pytest.MonkeyPatch) -> str:
    """MobileNetV2 whose constructor always gives the same network, to be spoilt."""
    encoder = PRETRAINED_ENCODERS["mobilenetv2"]
    same = encoder._replace(constructor=lambda **arguments: spoilt_network)
    monkeypatch.setattr(loading, "PRETRAINED_ENCODERS", {"mobilenetv2": same})
    return "mobilenetv2"


def _bad_file(kind: str, folder: Path, good: Path, old: Path) -> Path:
    path = folder / ("bad.weights.h5" if kind.endswith("new") else "bad.h5")
    if kind == "web page":
        path.write_text("<html>log in first</html>")
    elif kind.startswith("truncated"):
        content = (good if kind.endswith("new") else old).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind != "missing":
        if kind.startswith("four channels"):
            encoder = PRETRAINED_ENCODERS["mobilenetv2"]
            model = encoder.build(input_shape=(None, None, 4))
        else:
            image = keras.Input((None, None, 3))
            x = keras.layers.Conv2D(32, 3, use_bias=False)(image)
            model = keras.Model(image, keras.layers.BatchNormalization()(x))
        model.save_weights(path) if kind.endswith("new") else model.save(path)
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "there is no file .*bad.h5"),
        ("web page", "bad.h5 cannot be read as an HDF5 file"),
        ("truncated old", "bad.h5 cannot be read as an HDF5 file .*truncated"),
        ("truncated new", "bad.weights.h5 cannot be read as an HDF5 file .*truncated"),
        ("four channels old", "bad.h5 does not hold the weights of MobileNetV2 .*3 input channels"),
        ("four channels new", "bad.weights.h5 does not hold the weights of MobileNetV2"),
        ("another network old", "bad.h5 does not hold .*model.pretrained.encoder"),
        ("another network new", "bad.weights.h5 does not hold .*model.pretrained.encoder"),
    ],
)
def test_wrong_files_are_refused_by_name(
    tmp_path, spare, weight_file, old_weight_file, kind, reason
):
    path = _bad_file(kind, tmp_path, weight_file, old_weight_file)
    with pytest.raises(UserError, match=reason):
        loading._rgb_network(spare, str(path))


def test_a_weight_that_is_not_in_the_file_is_missed(tmp_path, spare, weight_file):
    """Keras only warns of some."""
    path = tmp_path / "nan.weights.h5"
    path.write_bytes(weight_file.read_bytes())
    assert loading._rgb_network(spare, str(path))
    with h5py.File(path, "r+") as file:
        for values in file["layers/batch_normalization/vars"].values():
            values[...] = np.nan
    with pytest.raises(UserError, match="it lacks those of layer bn_Conv1"):
        loading._rgb_network(spare, str(path))


@pytest.mark.parametrize("part", ["whole", "encoder"])
def test_another_run_makes_the_weights_of_imagenet_unnecessary(cache, tmp_path, part):
    settings = _settings(weights="imagenet", init_from=tmp_path / "run", init_part=part)
    assert build_network(settings, 4).count_params() > 2_258_272
    assert not cache.exists()


def test_the_decoder_follows_its_settings():
    settings = _settings(
        decoder_features=(2, 4, 6, 8, 10),
        norm="group",
        norm_groups=2,
        activation="silu",
        kernel=5,
        upsampling="interpolate",
        decoder_blocks=(1, 2, 1, 3, 1),
        attention_gates=True,
        dropout={"rate": 0.25, "place": "everywhere"},
    )
    network = build_network(settings, 2)
    names = [layer.name for layer in network.layers]
    assert [f"decoder_{n}_conv_{b}" in names for n, b in ((1, 1), (1, 2), (4, 3), (4, 4))] == [
        True,
        False,
        True,
        False,
    ]
    for level, features in enumerate((2, 4, 6, 8, 10), start=1):
        convolution = network.get_layer(f"decoder_{level}_conv_1")
        assert convolution.kernel_size == (5, 5) and convolution.filters == features
        assert network.get_layer(f"decoder_{level}_norm_1").groups == 2
        activation = network.get_layer(f"decoder_{level}_activation_1").activation
        assert activation is keras.activations.silu
        assert (f"decoder_{level}_gate" in names) == (level > 1)
    assert not any(isinstance(layer, keras.layers.Conv2DTranspose) for layer in network.layers)
    rates = {n: network.get_layer(n).rate for n in names if n.endswith("_dropout")}
    skips = [f"encoder_{level}_dropout" for level in range(2, 6)]
    decoder = [f"decoder_{level}_dropout" for level in range(1, 6)]
    assert rates == dict.fromkeys([*skips, "bottleneck_dropout", *decoder], 0.25)


@pytest.mark.parametrize(
    "chosen", ["efficientnetlite0", pytest.param("mobilenetv2", marks=pytest.mark.all_only)]
)
def test_battery(tmp_path, chosen):
    """float16 and, through its twin, float32; odd sizes, saving, training.

    Slices of sizes that are divisible are those of the tests above.
    """
    settings = _settings(chosen, target="labels", decoder_features=(4, 4, 6, 8, 8))
    shapes = ((1, 1, 33, 50),)
    check_model(settings, "mixed_float16", tmp_path, input_channels=5, shapes=shapes)
