import keras
import numpy as np
import pytest

from kerasseg.models.blocks import attention_gate
from tests.models.test_upsampling import linear


@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 1)])
def test_the_gate_is_additive_attention(shape):
    """Against numpy: sigmoid(psi(relu(theta(skip) + phi(gate)))), interpolated, times the skip."""
    skip = keras.Input((*[None] * len(shape), 4))
    gate = keras.Input((*[None] * len(shape), 5))
    network = keras.Model([skip, gate], attention_gate(skip, gate, "level"))
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    coarse = rng.normal(size=(2, *shape, 5)).astype(np.float32)
    fine = rng.normal(size=(2, *(2 * n for n in shape), 4)).astype(np.float32)
    (theta,) = network.get_layer("level_gate_skip").get_weights()
    phi, phi_bias = network.get_layer("level_gate_signal").get_weights()
    psi, psi_bias = network.get_layer("level_gate_psi").get_weights()
    summed = coarse @ phi.reshape(5, 2) + phi_bias
    for corner in np.ndindex(*[2] * len(shape)):
        voxels = fine[(slice(None), *(slice(c, None, 2) for c in corner))]
        summed = summed + voxels @ theta[corner]
    logit = np.maximum(summed, 0) @ psi.reshape(2, 1) + psi_bias
    attention = linear((1 / (1 + np.exp(-logit))).astype(np.float32))
    np.testing.assert_allclose(network([fine, coarse]), fine * attention, atol=1e-5)
