"""Which layers of a network are its encoder."""

import keras


def encoder_layers(network: keras.Model) -> list[keras.layers.Layer]:
    """Every layer upstream of `bottleneck`, and this one, in the order they are run.

    The input and the padding are among them; they have no weights.
    """
    bottleneck = network.get_layer("bottleneck").output
    return list(keras.Model(network.inputs, bottleneck).layers)
