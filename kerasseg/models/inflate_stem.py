"""A first convolution made for RGB, for any number of channels."""

import numpy as np


def inflate_stem(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Kernel (h, w, 3, F) of an RGB network -> (h, w, channels, F).

    Every channel gets the mean over R, G and B, times 3 / channels: an image of equal channels
    then gives the response that it gives as grey RGB, so that the layers behind see values in
    the range they were trained on. For 3 channels the kernel stays as it is.
    """
    rgb = kernel.shape[-2]
    if channels == rgb:
        return kernel
    mean = kernel.astype(np.float64).mean(axis=-2, keepdims=True) * (rgb / channels)
    return np.repeat(mean, channels, axis=-2).astype(kernel.dtype)
