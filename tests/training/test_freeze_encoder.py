import keras
import numpy as np
import pytest

from kerasseg.models.encoder_layers import encoder_layers
from kerasseg.settings.optimizer import OptimizerSettings
from kerasseg.training.callbacks.averaged_weights import AveragedWeights
from kerasseg.training.callbacks.freeze_encoder import FreezeEncoder
from kerasseg.training.optimizer import build_optimizer


def _network() -> keras.Model:
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
    return keras.Model(image, keras.layers.Activation("linear", dtype="float32")(x))


def _data() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    image = random.normal(2, 3, (8, 6, 10, 2)).astype(np.float32)
    return image, image[..., :1] > image[..., 1:]


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


def _optimizer(accumulation: int | None = None) -> keras.optimizers.Optimizer:
    return keras.optimizers.AdamW(0.01, weight_decay=0.5, gradient_accumulation_steps=accumulation)


OPTIMIZERS = {
    "adamw": _optimizer,
    "scaled_accumulated": lambda: keras.optimizers.LossScaleOptimizer(_optimizer(2)),
    "averaged": lambda: build_optimizer(OptimizerSettings(ema=0.5, warmup_epochs=0), 4, 2, 1),
}


def _moved(before: list[np.ndarray], after: list[np.ndarray]) -> list[bool]:
    return [not np.array_equal(a, b) for a, b in zip(before, after, strict=True)]


@pytest.mark.parametrize(
    ("name", "built"), [*((name, True) for name in OPTIMIZERS), ("adamw", False)]
)
def test_frozen_weights_do_not_move_and_then_they_do(name, built):
    """Neither by gradients, nor by weight decay, nor by batch statistics."""
    model = _network()
    model.compile(OPTIMIZERS[name](), "binary_crossentropy", jit_compile=False)
    if built:
        model.optimizer.build(model.trainable_variables)
    first = {layer.name: layer.get_weights() for layer in model.layers}
    weights = _Weights()
    with FreezeEncoder(encoder_layers(model), epochs=2) as freeze:
        callbacks = [freeze, weights]
        if name == "averaged":
            callbacks.append(AveragedWeights())
        image, truth = _data()
        model.fit(
            image,
            truth,
            batch_size=4,
            epochs=4,
            verbose=0,
            callbacks=callbacks,
            validation_data=(image, truth),
        )
    history = [first, *weights.epochs]
    for name_ in ("encoder_1_conv_1", "encoder_1_norm_1"):
        count = len(first[name_])
        moved = [_moved(history[e][name_], history[e + 1][name_]) for e in range(4)]
        assert moved == [[False] * count] * 2 + [[True] * count] * 2, name_
    for name_ in ("decoder_1_conv_1", "decoder_1_norm_1", "head"):
        for epoch in range(4):
            assert all(_moved(history[epoch][name_], history[epoch + 1][name_])), (name_, epoch)
    assert all(all(flags) for flags in weights.flags), (
        "what stands behind it must not see frozen layers"
    )
    assert all(layer.trainable for layer in model.layers)


def test_frozen_norms_run_on_their_stored_statistics():
    """In training as in inference: the loss of the first batch shows it."""
    image, truth = _data()
    losses = []
    for epochs in (0, 1):
        model = _network()
        model.get_layer("encoder_1_norm_1").set_weights(
            [np.ones(4), np.zeros(4), np.full(4, 5.0), np.full(4, 0.1)]
        )
        decoder_norm = model.get_layer("decoder_1_norm_1")
        decoder_norm.trainable = False
        model.compile(keras.optimizers.SGD(0.0), "binary_crossentropy", jit_compile=False)
        expected = model.evaluate(image, truth, batch_size=8, verbose=0)
        with FreezeEncoder(encoder_layers(model), epochs) as freeze:
            history = model.fit(image, truth, batch_size=8, verbose=0, callbacks=[freeze])
        losses.append(history.history["loss"][0])
        assert decoder_norm.trainable is False
    assert losses[1] == pytest.approx(expected, rel=1e-6)
    assert losses[0] != pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(("initial", "frozen"), [(1, True), (2, False)])
def test_a_resumed_run_counts_from_its_start(initial, frozen):
    model = _network()
    model.compile(_optimizer(), "binary_crossentropy", jit_compile=False)
    image, truth = _data()
    model.fit(image, truth, batch_size=4, verbose=0)  # a step that was traced with all trained
    before = model.get_layer("encoder_1_conv_1").get_weights()
    with FreezeEncoder(encoder_layers(model), epochs=2) as freeze:
        model.fit(
            image,
            truth,
            batch_size=4,
            epochs=initial + 1,
            initial_epoch=initial,
            verbose=0,
            callbacks=[freeze],
        )
    after = model.get_layer("encoder_1_conv_1").get_weights()
    assert _moved(before, after) == [not frozen] * 2


def test_after_an_interrupt_everything_can_be_trained_again():
    model = _network()
    model.get_layer("encoder_1_norm_1").trainable = False  # as its owner wants it
    model.compile(_optimizer(), "binary_crossentropy", jit_compile=False)
    image, truth = _data()
    weights = _Weights(interrupt_in=1)
    with pytest.raises(KeyboardInterrupt), FreezeEncoder(encoder_layers(model), 3) as freeze:
        model.fit(image, truth, batch_size=4, epochs=3, verbose=0, callbacks=[freeze, weights])
    assert [layer.name for layer in model.layers if not layer.trainable] == ["encoder_1_norm_1"]
