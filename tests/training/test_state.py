import keras
import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.training.state import Progress, load_state, save_state


def model(units=3, seed=0):
    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
    network.compile(
        keras.optimizers.AdamW(0.1, gradient_accumulation_steps=2), "mse", jit_compile=False
    )
    network.optimizer.build(network.trainable_variables)
    return network


def train(network, steps, seed):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        network.train_on_batch(rng.normal(size=(5, 4)), rng.normal(size=(5, 3)))


def test_saved_and_loaded_training_goes_on_exactly(tmp_path):
    first, second = model(), model(seed=1)
    train(first, 3, seed=0)  # an odd step: half an accumulation must survive too
    progress = Progress(epochs=3, best_score=0.5, best_epoch=2, stopped_early=True)
    save_state(tmp_path / "state.npz", first, progress)
    assert load_state(tmp_path / "state.npz", second) == progress
    for network in (first, second):
        train(network, 3, seed=1)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert int(first.optimizer.iterations) == int(second.optimizer.iterations)
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_another_network_and_a_cut_file_are_refused(tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, model(), Progress())
    other = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(3)])
    other.compile("adamw", "mse")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(UserError, match="made with another model"):
        load_state(path, other)
    with pytest.raises(UserError, match="cannot be read as the state"):
        load_state(path, model(units=5))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read as the state"):
        load_state(path, model())
