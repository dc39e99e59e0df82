"""One update of each optimiser in numpy, float64, as in the papers."""

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


class Muon:
    """Jordan et al. 2024; the polynomial acts on the singular values alone."""

    def __init__(self, settings):
        self.momentum, self.nesterov = settings.momentum, settings.nesterov
        self.buffer = 0.0

    def step(self, w, g, rate):
        self.buffer = self.momentum * self.buffer + g
        ahead = g + self.momentum * self.buffer if self.nesterov else self.buffer
        matrix = ahead.reshape(-1, ahead.shape[-1])
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        s = s / (np.sqrt(np.sum(s**2)) + 1e-7)
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        update = 0.2 * np.sqrt(max(matrix.shape)) * (u * s) @ v
        return w - rate * update.reshape(w.shape)


REFERENCES = {"adam": Adam, "adamw": Adam, "sgd": SGD, "lion": Lion, "muon": Muon}
