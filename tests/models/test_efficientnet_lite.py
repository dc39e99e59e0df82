"""EfficientNet-Lite0 gives the features that PyTorch gives, with the weights of the package.

`python -m tests.models.test_efficientnet_lite` writes what PyTorch gives into the file beside this.
"""

from pathlib import Path

import keras
import numpy as np
import pytest

from kerasseg.config.model import ModelSettings
from kerasseg.datasets.phantom import make_phantom
from kerasseg.errors import UserError
from kerasseg.models.build import build_network
from kerasseg.models.efficientnet_lite import (
    RGB_SCALE,
    efficientnet_lite0,
    load_efficientnet_lite0,
)
from kerasseg.models.pretrained_unet import PRETRAINED_ENCODERS
from kerasseg.pretrained_weights import KNOWN_WEIGHTS, find_weights
from tests.models.test_weight_files import safetensors

REFERENCE = Path(__file__).with_name("efficientnet_lite0.npz")
LAYERS = (*PRETRAINED_ENCODERS["efficientnetlite0"].skips, "blocks_15_bn2")


def pictures() -> np.ndarray:
    """Three slices of phantoms as z-scores, (3, 64, 96, 3)."""
    slices = [make_phantom((8, 64, 96), 7, i)[0][4, ..., :3] for i in range(3)]
    images = np.stack(slices).astype(np.float64)
    images -= images.mean(axis=(1, 2), keepdims=True)
    return (images / images.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def sample(features: np.ndarray) -> np.ndarray:
    """Every eighth row and channel or so of (3, h, w, C), 3 x 2 x 3 x 12 to 40 values."""
    height, width = features.shape[1:3]
    return features[:, :: max(1, height // 2), :: max(1, width // 3), ::8]


@pytest.fixture(scope="module")
def weights() -> Path:
    path = find_weights(KNOWN_WEIGHTS["efficientnetlite0"])
    assert path, "run: make setup"
    return path


@pytest.fixture(scope="module")
def features() -> list[np.ndarray]:
    """What the encoder of a U-Net for three channels gives at 1/2, 1/4, … 1/32 of the size."""
    pretrained = {"encoder": "efficientnetlite0", "decoder_features": (4, 4, 4, 4, 4)}
    settings = ModelSettings(
        dimensions=2, network="pretrained_unet", decoder_blocks=1, pretrained=pretrained
    )
    network = build_network(settings, 3)
    outputs = [network.get_layer(name).output for name in LAYERS]
    return [np.asarray(f) for f in keras.Model(network.inputs[0], outputs)(pictures())]


def test_features_are_those_that_pytorch_gave(features):
    with np.load(REFERENCE) as reference:
        for level, ours in enumerate(features):
            expected = reference[f"features_{level}"]
            assert expected.std() > 0.1
            np.testing.assert_allclose(sample(ours), expected, atol=1e-4, err_msg=LAYERS[level])


def torch_features(weights: Path) -> list[np.ndarray]:
    """The same features by PyTorch, whose network sees what `RGB_SCALE` stands for."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install '.[peers]'")
    lite = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install '.[peers]'")
    network = lite.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights))
    found: list = []
    for block in (1, 3, 5, 11):  # the norm before the activation that our skip takes
        norm = network._blocks[block]._bn0
        norm.register_forward_hook(lambda *call: found.append(call[2].clamp(0, 6)))
    network._blocks[15].register_forward_hook(lambda *call: found.append(call[2]))
    with torch.no_grad():
        network.eval()(torch.tensor(pictures() * RGB_SCALE).permute(0, 3, 1, 2))
    return [f.permute(0, 2, 3, 1).numpy() for f in found]


def test_features_are_those_of_pytorch(features, weights):
    for name, ours, theirs in zip(LAYERS, features, torch_features(weights), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    return efficientnet_lite0((None, None, 3))


@pytest.mark.parametrize(
    ("size", "name", "words"),
    [
        (
            (32, 3, 3, 3),
            "_conv_stem.weight",
            r"expected _bn0\.weight of size \(32,\), but it is not",
        ),
        ((8, 3, 3, 3), "_conv_stem.weight", r"expected _conv_stem.weight .* has \(8, 3, 3, 3\)"),
        ((2,), "_fc.bias", r"expected _conv_stem\.weight .*: set model\.pretrained\.encoder"),
    ],
)
def test_a_file_of_another_network_is_refused(tmp_path, network, size, name, words):
    values = np.zeros(size, np.float32).tobytes()
    entry = {"dtype": "F32", "shape": size, "data_offsets": [0, len(values)]}
    (tmp_path / "net.safetensors").write_bytes(safetensors({name: entry}, values))
    with pytest.raises(UserError, match=words):
        load_efficientnet_lite0(network, tmp_path / "net.safetensors")


if __name__ == "__main__":
    path = find_weights(KNOWN_WEIGHTS["efficientnetlite0"])
    assert path is not None
    values = {f"features_{i}": sample(f) for i, f in enumerate(torch_features(path))}
    np.savez_compressed(REFERENCE, **values)
