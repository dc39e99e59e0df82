import json

import keras
import numpy as np
import pytest

from kerasseg.errors import UserError
from kerasseg.losses.loss import SegmentationLoss
from kerasseg.training.fit import _steps_per_epoch
from kerasseg.training.state import Progress, load_state, save_state
from kerasseg.training.step import TrainingModel
from tests.conftest import phantom_experiment


def model(units=4, seed=0, layers=1):
    """With dropout and batch normalisation, whose states are of other kinds."""
    keras.utils.set_random_seed(seed)
    image = keras.Input((2, 3, 4))
    x = image
    for _ in range(layers):
        x = keras.layers.Conv2D(units, 1)(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(x)
    x = keras.layers.Conv2D(3, 1, name="head")(x)
    logits = keras.layers.Activation("linear", name="logits")(x)
    network = keras.Model(image, logits)
    loss = SegmentationLoss({"dice": 1}, from_logits=True)
    made = TrainingModel(network, "regions", loss, accumulation=2)
    made.compile(keras.optimizers.AdamW(0.1), jit_compile=False, auto_scale_loss=False)
    made.optimizer.build(made.trainable_variables)
    return made


def train(network, steps, seed):
    """The logs of the last step."""
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        image, masks = rng.normal(size=(5, 2, 3, 4)), rng.integers(0, 2, (5, 2, 3, 3))
        logs = network.train_on_batch(image.astype(np.float32), masks, return_dict=True)
    return logs


def everything(network):
    variables = [*network.variables, *network.optimizer.variables, *network.loss_scale.variables]
    return [np.asarray(v.numpy()) for v in (*variables, *network.metrics_variables)]


@pytest.mark.parametrize("step", [0, 3])
def test_saved_and_loaded_training_goes_on_exactly(tmp_path, step):
    """Between epochs and, with the epoch's metrics so far, within one."""
    first, second = model(), model(seed=1)
    train(first, 3, seed=0)
    for variable, value in zip(first.loss_scale.variables, (8.0, 17, 3), strict=True):
        variable.assign(value)
    progress = Progress(
        epochs=3,
        best_score=0.5,
        best_epoch=2,
        stopped_early=True,
        reduced_epoch=1,
        step=step,
        logs={"loss": 0.25},
        score_sum=0.75,
    )
    save_state(tmp_path / "state.npz", first, progress)
    assert load_state(tmp_path / "state.npz", second) == progress
    assert [float(v.numpy()) for v in second.loss_scale.variables] == [8, 17, 3]
    if not step:
        for network in (first, second):
            network.reset_metrics()
    logs = [train(network, 3, seed=1) for network in (first, second)]
    assert logs[0] == logs[1]
    for a, b in zip(everything(first), everything(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(second.optimizer.iterations) == 6
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def test_another_network_and_a_cut_file_are_refused(tmp_path):
    path = tmp_path / "state.npz"
    save_state(path, model(), Progress())
    for other in (model(units=5), model(layers=2)):
        before = everything(other)
        with pytest.raises(UserError, match="made with another model"):
            load_state(path, other)
        for a, b in zip(before, everything(other), strict=True):
            np.testing.assert_array_equal(a, b)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot be read as the state"):
        load_state(path, model())


def test_a_run_of_an_older_version_keeps_the_length_of_its_epochs(tmp_path):
    """It made whole batches of the cases first: four times as many patches of three cases."""
    experiment = phantom_experiment(
        tmp_path,
        "training={batch_size: 12, gradient_accumulation: 2}",
        "pipeline.patches_per_volume=7",
    )
    state = tmp_path / "state.npz"
    for counts_patches, steps in ((True, None), (False, 8)):
        save_state(state, model(), Progress(epochs=1, counts_patches=counts_patches))
        assert _steps_per_epoch(experiment, 3, state) == steps
    with np.load(state) as arrays:
        stored = dict(arrays)
    progress = json.loads(str(stored["progress"]))
    del progress["counts_patches"]
    np.savez(state, **stored | {"progress": np.array(json.dumps(progress))})
    assert not load_state(state, None).counts_patches
    assert _steps_per_epoch(experiment, 3, state) == 8
    assert _steps_per_epoch(experiment, 3, None) is None
    given = phantom_experiment(tmp_path, "training.steps_per_epoch=4")
    assert _steps_per_epoch(given, 3, state) == 4
