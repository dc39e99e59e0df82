"""A model whose gradient is what it is given as an image, so that numpy can follow its updates."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasseg.training.step import TrainingModel


class InnerProduct(keras.layers.Layer):
    """Image (B, 1, 1, N) -> (B, 1, 1, 1): `factor` times its inner product with all weights, of
    which there are N."""

    def __init__(self, shapes, factor, **options):
        super().__init__(**options)
        self.shapes = shapes
        self.factor = factor

    def build(self, shape):
        self.parts = {
            name: self.add_weight(size, "glorot_uniform", name=name.split("/")[-1])
            for name, size in self.shapes.items()
        }

    def call(self, image):
        flat = ops.concatenate([ops.reshape(v, (-1,)) for v in self.parts.values()])
        return self.factor * ops.sum(image * flat, axis=-1, keepdims=True)


class MeanLogit(keras.losses.Loss):
    """The mean of the logits, whatever the truth is."""

    def call(self, y_true, y_pred):
        return ops.reshape(ops.mean(y_pred), (1,))  # so that Keras divides it by the replicas


def given_gradients(
    shapes, make_optimizer, values=None, *, factor=1.0, batch_norm=False, **options
):
    """A compiled `TrainingModel` and its variables by the names in `shapes`.

    The gradient of its loss is `factor` times the mean of a batch's images. `make_optimizer`
    makes its optimiser of the variables; `values` are their first ones. With `batch_norm` the
    images also go through a batch normalisation that changes nothing of that. `options` are
    `TrainingModel`'s.
    """
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    image = keras.Input((1, 1, count))
    layer = InnerProduct(shapes, factor, name="head")
    x = layer(image)
    if batch_norm:
        normalised = keras.layers.BatchNormalization(scale=False, name="norm")(image)
        x = keras.layers.Concatenate()([x, normalised])[..., :1]
    logits = keras.layers.Activation("linear", dtype="float32", name="logits")(x)
    network = keras.Model(image, logits)
    for name, value in (values or {}).items():
        layer.parts[name].assign(value)
    model = TrainingModel(network, "binary", MeanLogit(), **options)
    model.compile(make_optimizer(layer.parts), jit_compile=False, auto_scale_loss=False)
    model.optimizer.build(model.trainable_variables)
    model.make_train_function()
    return model, layer.parts


def batches_of(gradients, devices=None):
    """An iterator of batches of one image each, or of one for each replica of `devices`.

    gradients: one dict of arrays by the names of `shapes` per batch, or a list of them, one for
    each replica
    """
    rows = [
        [np.concatenate([np.ravel(value) for value in part.values()]) for part in parts]
        for parts in (batch if isinstance(batch, list) else [batch] for batch in gradients)
    ]
    images = np.array(rows, np.float32)[:, :, None, None]
    masks = np.zeros((*images.shape[:-1], 1), np.uint8)
    dataset = tf.data.Dataset.from_tensor_slices((images, masks))
    return iter(devices.distribute(dataset.repeat(), images.shape[1]) if devices else dataset)
