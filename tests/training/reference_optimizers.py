"""One update of each optimiser, in numpy and float64 as in the papers."""

import keras
import numpy as np


class Adam:
    """Kingma and Ba 2015, algorithm 1, with Keras's place of epsilon."""

    def __init__(self, settings):
        self.beta_1, self.beta_2 = settings.beta_1, settings.beta_2
        self.m = self.v = 0.0
        self.t = 0

    def step(self, w, g, rate):
        self.t += 1
        self.m = self.beta_1 * self.m + (1 - self.beta_1) * g
        self.v = self.beta_2 * self.v + (1 - self.beta_2) * g**2
        rate *= np.sqrt(1 - self.beta_2**self.t) / (1 - self.beta_1**self.t)
        return w - rate * self.m / (np.sqrt(self.v) + 1e-7)


class SGD:
    """Sutskever et al. 2013."""

    def __init__(self, settings):
        self.momentum, self.nesterov = settings.momentum, settings.nesterov
        self.velocity = 0.0

    def step(self, w, g, rate):
        self.velocity = self.momentum * self.velocity - rate * g
        return w + (self.momentum * self.velocity - rate * g if self.nesterov else self.velocity)


class Lion:
    """Chen et al. 2023, algorithm 2."""

    def __init__(self, settings):
        self.beta_1, self.beta_2 = settings.beta_1, settings.beta_2
        self.m = 0.0

    def step(self, w, g, rate):
        update = np.sign(self.beta_1 * self.m + (1 - self.beta_1) * g)
        self.m = self.beta_2 * self.m + (1 - self.beta_2) * g
        return w - rate * update


class ByKeras:
    """A Keras optimiser by its import path, on one variable, without its own weight decay."""

    def __init__(self, settings):
        kind = getattr(keras.optimizers, settings.name.rpartition(".")[2])
        self.optimizer = kind(**settings.options)
        self.optimizer.exclude_from_weight_decay(var_names=[""])
        self.variable = None

    def step(self, w, g, rate):
        if self.variable is None:
            self.variable = keras.Variable(w, dtype="float32")
        self.variable.assign(w)
        self.optimizer.learning_rate = rate
        self.optimizer.apply([keras.ops.cast(g, "float32")], [self.variable])
        return np.array(self.variable, np.float64)


REFERENCES = {"adam": Adam, "adamw": Adam, "sgd": SGD, "lion": Lion}
