import keras
import pytest

from kerasseg.config.model import ModelSettings
from kerasseg.models.build import build_network
from kerasseg.models.unet import encoder_layers

SMALL = {"features": (4, 6), "bottleneck": 8, "encoder_blocks": 1, "decoder_blocks": 1}


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"residual": "both", "downsampling": "strided", "attention_gates": True},
        {"upsampling": "interpolate", "dropout": {"rate": 0.2, "place": "everywhere"}},
    ],
)
def test_the_encoder_ends_in_the_bottleneck(dimensions, changes):
    network = build_network(ModelSettings(**SMALL, **changes, dimensions=dimensions), 2)
    layers = encoder_layers(network)
    inside = {layer.name for layer in layers}
    assert len(inside) == len(layers)
    named = {layer.name for layer in network.layers}
    assert {n for n in named if n.startswith(("encoder_", "bottleneck"))} <= inside
    assert not {n for n in inside if n.startswith(("decoder_", "head", "logits", "prob"))}
    for layer in layers:
        assert network.get_layer(layer.name) is layer
    weighted = [layer.name for layer in network.layers if layer.weights]
    assert [n for n in weighted if n in inside] == [
        n for n in weighted if n.startswith(("encoder_", "bottleneck"))
    ]


def test_the_encoder_of_a_twin_that_is_trained_is_the_same():
    network = build_network(ModelSettings(**SMALL, dimensions=2), 2)
    twin = keras.Model(network.inputs, network.get_layer("logits").output)
    twin.compile("sgd", "mse")
    assert encoder_layers(twin) == encoder_layers(network)
