"""`python -m benchmarks instance_norm`: Keras's instance norm against one with its own gradient.

Time of forward and backward pass; and the memory that a training step needs for each value of a
block of convolution, norm and leaky ReLU: the difference of the peaks of a network of 12 blocks and
of one of 4, so that what a step takes anyway cancels out.
"""

import json
import resource
import statistics
import sys
import time
from typing import Any

from benchmarks.subprocess_json import measure
from kerasseg.tensorflow_setup import start_tensorflow

NORMS = ("keras", "lean")
POLICIES = ("float32", "mixed_float16", "mixed_bfloat16")
SHAPES = ((1, 32, 64, 64, 32), (1, 8, 16, 16, 128), (8, 128, 128, 32), (4, 32, 32, 128))
"""Volumes, then slices: batch, sizes, channels."""
ROUNDS = 31
MEMORY_SHAPE, DEPTHS = (2, 512, 512, 16), (4, 12)
EPSILON = 1e-5


def run() -> str:
    """Markdown tables; the two norms take turns."""
    rows = []
    for policy in POLICIES:
        seconds = measure("benchmarks.instance_norm", "time", policy)
        for shape in SHAPES:
            keras_time, lean_time = seconds[str(shape)]
            rows.append(
                f"| {policy} | {' x '.join(map(str, shape))} | {keras_time * 1e3:.1f} ms "
                f"| {lean_time * 1e3:.1f} ms | {lean_time / keras_time:.2f} |"
            )
    table = "| precision | batch, sizes, channels | Keras | lean | ratio |\n|---|---|---|---|---|\n"
    memory = []
    for policy in POLICIES:
        cells = []
        for norm in NORMS:
            peaks = [
                measure("benchmarks.instance_norm", "memory", policy, norm, str(depth))["bytes"]
                for depth in DEPTHS
            ]
            cells.append(f"{(peaks[1] - peaks[0]) / (DEPTHS[1] - DEPTHS[0]):.1f}")
        memory.append(f"| {policy} | " + " | ".join(cells) + " |")
    return (
        f"## Instance norm, forward and backward (median of {ROUNDS})\n\n{table}"
        + "\n".join(rows)
        + "\n\n## Bytes per value of a block of convolution, norm, leaky ReLU\n\n"
        + "| precision | Keras | lean |\n|---|---|---|\n"
        + "\n".join(memory)
    )


def make_norm(name: str) -> Any:
    """Keras's `GroupNormalization(groups=-1)`, or a layer that equals it and keeps only its input.

    Statistics are float32 in both. The gradient of the lean one is worked out by hand and computes
    the normalised values again.
    """
    import keras
    from keras import ops

    if name == "keras":
        return keras.layers.GroupNormalization(groups=-1, epsilon=EPSILON)

    @ops.custom_gradient
    def normalise(x: Any, gamma: Any, beta: Any) -> Any:
        axes = tuple(range(1, len(x.shape) - 1))
        x32 = ops.cast(x, "float32")
        mean, variance = ops.moments(x32, axes, keepdims=True)
        inverse = ops.rsqrt(variance + EPSILON)
        scale = inverse * gamma
        y = ops.cast(x32 * scale + (beta - mean * scale), x.dtype)

        def gradient(*arguments: Any, upstream: Any = None) -> Any:
            dy = ops.cast(arguments[0] if upstream is None else upstream, "float32")
            # Not x32 - mean: TensorFlow would find the common term and keep x32 for it.
            coarse = ops.cast(mean, x.dtype)
            fine = mean - ops.cast(coarse, "float32")
            normal = (ops.cast(x - coarse, "float32") - fine) * inverse
            mean_dy = ops.mean(dy, axes, keepdims=True)
            mean_product = ops.mean(dy * normal, axes, keepdims=True)
            dx = scale * (dy - mean_dy - normal * mean_product)
            count = 1
            for axis in axes:
                count = count * ops.shape(x)[axis]
            count = ops.cast(count, "float32")
            outer = (0, *axes)
            return (
                ops.cast(dx, x.dtype),
                ops.sum(mean_product, outer) * count,
                ops.sum(mean_dy, outer) * count,
            )

        return y, gradient

    class LeanInstanceNorm(keras.layers.Layer):
        def build(self, shape: tuple[int, ...]) -> None:
            channels = (shape[-1],)
            self.gamma = self.add_weight(shape=channels, initializer="ones", autocast=False)
            self.beta = self.add_weight(shape=channels, initializer="zeros", autocast=False)

        def call(self, x: Any) -> Any:
            # Reshaped because TensorFlow's custom gradients take tensors and no variables.
            return normalise(x, ops.reshape(self.gamma, (-1,)), ops.reshape(self.beta, (-1,)))

    return LeanInstanceNorm()


def measure_time(policy: str) -> dict[str, list[float]]:
    """Shape -> seconds of either norm; raises `ValueError` if they do not agree."""
    import keras
    import numpy as np
    import tensorflow as tf

    keras.config.set_dtype_policy(policy)
    rng = np.random.default_rng(0)
    result = {}
    for shape in SHAPES:
        x, dy = (
            tf.constant(rng.normal(3, 2, shape), keras.config.dtype_policy().compute_dtype)
            for _ in range(2)
        )
        steps, outputs = [], []
        for name in NORMS:
            norm = make_norm(name)
            norm.build(shape)

            def step(norm: Any = norm, x: Any = x, dy: Any = dy) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(x)
                    y = norm(x)
                return y, tape.gradient(y, x, dy)

            steps.append(tf.function(step))
            outputs.append([np.asarray(tf.cast(value, tf.float32)) for value in steps[-1]()])
        tolerance = 1e-4 if policy == "float32" else 0.1
        for theirs, ours in zip(*outputs, strict=True):
            if not np.allclose(theirs, ours, atol=tolerance):
                raise ValueError(f"the two norms differ by {np.abs(theirs - ours).max()}")
        seconds: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for step, times in zip(steps, seconds, strict=True):
                started = time.perf_counter()
                step()[1].numpy()
                times.append(time.perf_counter() - started)
        result[str(shape)] = [statistics.median(times) for times in seconds]
    return result


def measure_memory(policy: str, name: str, depth: int) -> float:
    """Peak of a training step of that many blocks, in bytes per value of one block."""
    import keras
    import tensorflow as tf

    keras.config.set_dtype_policy(policy)
    channels = MEMORY_SHAPE[-1]
    image = keras.Input((None, None, channels))
    x = image
    for _ in range(depth):
        x = make_norm(name)(keras.layers.Conv2D(channels, 1)(x))
        x = keras.layers.LeakyReLU(0.01)(x)
    network = keras.Model(image, x)

    @tf.function
    def step(batch: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.cast(network(batch, training=True), tf.float32))
        return tape.gradient(loss, network.trainable_variables)

    step(tf.zeros((1, 32, 32, channels)))
    step(tf.zeros((1, 64, 64, channels)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step(tf.zeros(MEMORY_SHAPE))
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    values = MEMORY_SHAPE[0] * MEMORY_SHAPE[1] * MEMORY_SHAPE[2] * channels
    return taken * 1024 / values


def main(what: str, policy: str, name: str = "", depth: str = "") -> None:
    """Print one measurement as JSON."""
    start_tensorflow()
    if what == "time":
        print(json.dumps(measure_time(policy)))
    else:
        print(json.dumps({"bytes": measure_memory(policy, name, int(depth))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
