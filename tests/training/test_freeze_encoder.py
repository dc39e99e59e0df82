import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasseg.config.training import OptimizerSettings
from kerasseg.losses.loss import SegmentationLoss
from kerasseg.models.unet import encoder_layers
from kerasseg.training.callbacks import FreezeEncoder
from kerasseg.training.fit import run_epochs
from kerasseg.training.optimizers import build_optimizer
from kerasseg.training.state import Progress
from kerasseg.training.step import TrainingModel


def _model(
    optimizer: keras.optimizers.Optimizer, *, accumulation: int = 1, built: bool = True
) -> TrainingModel:
    """A network of the house in small, with batch normalisation on both sides."""
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 10, 2), name="image")
    x = keras.layers.Conv2D(4, 3, padding="same", name="encoder_1_conv_1")(image)
    x = keras.layers.BatchNormalization(name="encoder_1_norm_1")(x)
    x = keras.layers.Activation("relu")(x)
    x = keras.layers.Identity(name="bottleneck")(x)
    x = keras.layers.Conv2D(4, 3, padding="same", name="decoder_1_conv_1")(x)
    x = keras.layers.BatchNormalization(name="decoder_1_norm_1")(x)
    x = keras.layers.Conv2D(1, 1, name="head")(x)
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    network = keras.Model(image, logits)
    loss = SegmentationLoss({"cross_entropy": 1}, from_logits=True)
    model = TrainingModel(network, "binary", loss, accumulation=accumulation)
    model.compile(optimizer, jit_compile=False, auto_scale_loss=False)
    if built:
        model.optimizer.build(model.trainable_variables)
    return model


def _data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.normal(2, 3, (8, 6, 10, 2)).astype(np.float32)
    return image, (image[..., :1] > image[..., 1:]).astype(np.uint8)


def _train(model: TrainingModel, epochs: int, *callbacks, first: int = 0, batch_size: int = 4):
    """Train on all data in each epoch, and validate."""
    data = tf.data.Dataset.from_tensor_slices(_data())
    batches = data.batch(batch_size)
    steps = int(batches.cardinality())
    run_epochs(
        model,
        lambda epoch, update: batches.repeat(),
        batches,
        epochs=epochs,
        updates_per_epoch=steps // model.accumulation,
        validation_steps=steps,
        progress=Progress(epochs=first),
        callbacks=keras.callbacks.CallbackList([*callbacks], model=model),
        save=lambda: None,
    )


class _Weights(keras.callbacks.Callback):
    """Keeps the weights and the flags at the end of each epoch; may interrupt one."""

    def __init__(self, interrupt_in: int | None = None) -> None:
        super().__init__()
        self.epochs: list[dict[str, list[np.ndarray]]] = []
        self.flags: list[list[bool]] = []
        self.epoch, self.interrupt_in = 0, interrupt_in

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == self.interrupt_in:
            raise KeyboardInterrupt

    def on_test_begin(self, logs=None):
        self.flags.append([layer.trainable for layer in self.model.layers])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append({layer.name: layer.get_weights() for layer in self.model.layers})
        self.flags.append([layer.trainable for layer in self.model.layers])


def _optimizer(**settings) -> keras.optimizers.Optimizer:
    options = {"learning_rate": 0.01, "weight_decay": 0.5, "warmup_epochs": 0, **settings}
    return build_optimizer(OptimizerSettings(**options), 4, 2)


def _moved(before: list[np.ndarray], after: list[np.ndarray]) -> list[bool]:
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize(
    ("policy", "settings", "options"),
    [
        ("float32", {}, {}),
        ("float32", {}, {"built": False}),
        # The averages are in the next one, too.
        pytest.param("float32", {"name": "sgd", "ema": 0.5}, {}, marks=pytest.mark.all_only),
        ("mixed_float16", {"ema": 0.5}, {"accumulation": 2}),
    ],
    ids=["adamw", "not built", "averaged", "scaled, accumulated, averaged"],
)
def test_frozen_weights_do_not_move_and_then_they_do(policy, settings, options):
    """Neither by gradients, nor by weight decay, nor by batch statistics."""
    keras.config.set_dtype_policy(policy)
    try:
        model = _model(_optimizer(**settings), **options)
        first = {layer.name: layer.get_weights() for layer in model.layers}
        weights = _Weights()
        with FreezeEncoder(encoder_layers(model), epochs=2) as freeze:
            _train(model, 4, freeze, weights)
    finally:
        keras.config.set_dtype_policy("float32")
    assert int(model.loss_scale.skipped) == 0
    history = [first, *weights.epochs]
    for name in ("encoder_1_conv_1", "encoder_1_norm_1"):
        count = len(first[name])
        moved = [_moved(history[e][name], history[e + 1][name]) for e in range(4)]
        assert moved == [[False] * count] * 2 + [[True] * count] * 2, name
    for name in ("decoder_1_conv_1", "decoder_1_norm_1", "head"):
        for epoch in range(4):
            assert all(_moved(history[epoch][name], history[epoch + 1][name])), (name, epoch)
    assert all(all(flags) for flags in weights.flags), (
        "what stands behind it must not see frozen layers"
    )
    assert all(layer.trainable for layer in model.layers)


def test_frozen_norms_run_on_their_stored_statistics():
    """In training as in inference: the loss of the first batch shows it."""
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            losses.append(logs["loss"])

    for epochs in (0, 1):
        model = _model(_optimizer())
        model.get_layer("encoder_1_norm_1").set_weights(
            [np.ones(4), np.zeros(4), np.full(4, 5.0), np.full(4, 0.1)]
        )
        decoder_norm = model.get_layer("decoder_1_norm_1")
        decoder_norm.trainable = False
        image, truth = _data()
        expected = float(model.loss_of_masks(truth, model(image, training=False)))
        with FreezeEncoder(encoder_layers(model), epochs) as freeze:
            _train(model, 1, freeze, Losses(), batch_size=8)
        assert decoder_norm.trainable is False
    assert losses[1] == pytest.approx(expected, rel=1e-6)
    assert losses[0] != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(("initial", "frozen"), [(1, True), (2, False)])
def test_a_resumed_run_counts_from_its_start(initial, frozen):
    model = _model(_optimizer())
    _train(model, 1)  # a step that was traced with all trained
    before = model.get_layer("encoder_1_conv_1").get_weights()
    with FreezeEncoder(encoder_layers(model), epochs=2) as freeze:
        _train(model, initial + 1, freeze, first=initial)
    after = model.get_layer("encoder_1_conv_1").get_weights()
    assert _moved(before, after) == [not frozen] * 2


def test_after_an_interrupt_everything_can_be_trained_again():
    model = _model(_optimizer())
    convolution = model.get_layer("encoder_1_conv_1")
    model.get_layer("encoder_1_norm_1").trainable = False  # as its owner wants it
    convolution.bias.trainable = False  # a single weight, as in a SAM
    weights = _Weights(interrupt_in=1)
    with pytest.raises(KeyboardInterrupt), FreezeEncoder(encoder_layers(model), 3) as freeze:
        _train(model, 3, freeze, weights)
    assert [layer.name for layer in model.layers if not layer.trainable] == ["encoder_1_norm_1"]
    assert not convolution.bias.trainable and convolution.kernel.trainable


def test_a_frozen_weight_is_no_moving_statistic():
    """Several replicas would exchange it after each update."""
    model = _model(_optimizer())
    model.get_layer("encoder_1_conv_1").trainable = False
    again = TrainingModel(model, "binary", model.loss_of_masks)
    norms = [again.get_layer(name) for name in ("encoder_1_norm_1", "decoder_1_norm_1")]
    expected = {id(v.value) for norm in norms for v in (norm.moving_mean, norm.moving_variance)}
    assert {id(v) for v in again.moving_statistics} == expected
