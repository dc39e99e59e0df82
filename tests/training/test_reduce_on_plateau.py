from pathlib import Path

import keras
import numpy as np
import pytest

from kerasseg.training.callbacks import Checkpoints, ReduceOnPlateau
from kerasseg.training.state import Progress

SCORES = [0.1, 0.3, 0.3, 0.2, 0.35, 0.3, 0.3, 0.2, 0.1, 0.36, 0.3, 0.3, 0.3, 0.3, 0.3]


def model():
    made = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    made.compile(keras.optimizers.SGD(1.0), "mse")
    return made


@pytest.mark.parametrize("patience", [1, 2, 3])
def test_it_falls_where_that_of_keras_does(patience, monkeypatch):
    monkeypatch.setattr("kerasseg.training.callbacks.save_network", lambda *_: None)
    progress, ours, theirs = Progress(), model(), model()
    callbacks = [
        Checkpoints(ours, Path("nowhere"), progress, None),
        ReduceOnPlateau(progress, 0.5, patience, lowest=0.1),
    ]
    keras_own = keras.callbacks.ReduceLROnPlateau(
        "val_dice", 0.5, patience, mode="max", min_delta=0, min_lr=0.1
    )
    for callback in callbacks:
        callback.set_model(ours)
    keras_own.set_model(theirs)
    keras_own.on_train_begin()
    rates = []
    for epoch, score in enumerate(SCORES):
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"val_dice": score})
        keras_own.on_epoch_end(epoch, {"val_dice": score})
        rates.append([float(m.optimizer.learning_rate) for m in (ours, theirs)])
    np.testing.assert_allclose(*np.transpose(rates))
    assert len(np.unique(rates)) > 2 and np.min(rates) >= 0.1 * (1 - 1e-6)
