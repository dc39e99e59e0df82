import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasseg.inference.sliding_window import sliding_window, window_starts, window_weights

WINDOW = (4, 6, 5)


def network(batch: np.ndarray) -> np.ndarray:
    """Depends on the place inside the window, so that wrong weights or places show."""
    ramp = np.linspace(0, 1, np.prod(batch.shape[1:4])).reshape(batch.shape[1:4])
    return np.stack([batch[..., 0] + ramp, batch.sum(axis=-1) * ramp], axis=-1)


def brute_force(volume, starts, weights):
    """One window and one voxel at a time, in float64."""
    total = np.zeros((*volume.shape[:3], 2))
    norm = np.zeros(volume.shape[:3])
    for start in starts:
        box = tuple(slice(s, s + w) for s, w in zip(start, WINDOW, strict=True))
        output = network(volume[box][np.newaxis])[0]
        for d, h, w in np.ndindex(*WINDOW):
            place = (start[0] + d, start[1] + h, start[2] + w)
            total[place] += output[d, h, w] * weights[d, h, w]
            norm[place] += weights[d, h, w]
    return total / norm[..., np.newaxis]


@pytest.mark.parametrize("weighting", ["gaussian", "constant"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.7])
def test_equals_the_brute_force_loop(weighting, batch, overlap):
    volume = np.random.default_rng(0).normal(size=(7, 13, 9, 3)).astype(np.float32)
    starts = window_starts(volume.shape[:3], WINDOW, overlap)
    expected = brute_force(volume, starts, window_weights(WINDOW, weighting))
    found = sliding_window(
        network, volume, WINDOW, overlap=overlap, weighting=weighting, batch=batch
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=50)
@given(
    st.tuples(*[st.integers(1, 14)] * 3),
    st.sampled_from([0.0, 0.25, 0.5, 0.9]),
    st.integers(1, 5),
)
def test_a_local_network_comes_back_unchanged_whatever_the_size(shape, overlap, batch):
    """Smaller than the window or larger, every voxel is covered and put back in its place."""
    volume = np.random.default_rng(1).normal(size=(*shape, 2)).astype(np.float32)
    sizes = set()

    def local(windows):
        sizes.add(windows.shape[1:4])
        assert len(windows) <= batch
        return windows * 2 + 1

    found = sliding_window(local, volume, WINDOW, overlap=overlap, batch=batch)
    assert sizes == {WINDOW}
    np.testing.assert_allclose(found, volume * 2 + 1, atol=1e-5)


def test_starts_touch_both_edges_and_overlap_enough():
    starts = window_starts((10, 11, 5), WINDOW, 0.5)
    for axis, (length, size) in enumerate(zip((10, 11, 5), WINDOW, strict=True)):
        places = sorted({s[axis] for s in starts})
        assert places[0] == 0 and places[-1] == length - size
        assert all(b - a <= size * 0.5 for a, b in itertools.pairwise(places))


def test_gaussian_weights_against_the_formula():
    weights = window_weights(WINDOW, "gaussian")
    grid = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in WINDOW], indexing="ij"))
    sigma = np.array(WINDOW)[:, None, None, None] / 8
    expected = np.exp(-0.5 * (grid / sigma) ** 2).prod(axis=0)
    np.testing.assert_allclose(weights, np.maximum(expected / expected.max(), 1e-3), rtol=1e-5)
