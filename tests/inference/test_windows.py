"""The sliding window against a loop over windows and voxels."""

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasseg.inference.windows import (
    DeviceAccumulator,
    HostAccumulator,
    choose_accumulator,
    sliding_window,
)
from kerasseg.records.normalise import brain_mask

WINDOW = (4, 6, 5)
BACKGROUNDS = {"sigmoid": (0.0, 0.0), "softmax": (1.0, 0.0)}


def network(batch: np.ndarray) -> np.ndarray:
    """Depends on the place inside the window, so that wrong weights or places show."""
    ramp = np.linspace(0, 1, np.prod(batch.shape[1:4])).reshape(batch.shape[1:4])
    return np.stack([batch[..., 0] + ramp, batch.sum(axis=-1) * ramp], axis=-1)


def gaussian(window):
    """The weights by their formula, one axis and one voxel at a time."""
    weights = np.zeros(window)
    for place in np.ndindex(*window):
        exponent = 0.0
        for p, n in zip(place, window, strict=True):
            exponent += ((p - (n - 1) / 2) / (n / 8)) ** 2
        weights[place] = np.exp(-exponent / 2)
    return np.maximum(weights / weights.max(), 1e-3)


def starts_of(length, size, overlap):
    """Edge to edge, the fewest that overlap enough, evenly."""
    if length <= size:
        return [-((size - length) // 2)]
    step = max(int(size * (1 - overlap)), 1)
    count = 2
    while (length - size) / (count - 1) > step:
        count += 1
    return [round(place) for place in np.linspace(0, length - size, count)]


def brute_force(volume, weighting, overlap, background=None, predict=network):
    """One window and one voxel at a time, in float64; air outside the volume."""
    channels = 2
    shape = volume.shape[:3]
    weights = gaussian(WINDOW) if weighting == "gaussian" else np.ones(WINDOW)
    total, norm = np.zeros((*shape, channels)), np.zeros(shape)
    axes = [starts_of(n, w, overlap) for n, w in zip(shape, WINDOW, strict=True)]
    for start in itertools.product(*axes):
        window = np.zeros((*WINDOW, volume.shape[3]))
        voxels = []
        for place in np.ndindex(*WINDOW):
            voxel = tuple(s + p for s, p in zip(start, place, strict=True))
            if all(0 <= v < n for v, n in zip(voxel, shape, strict=True)):
                window[place] = volume[voxel]
                voxels.append((place, voxel))
        if background is not None and not window.any():
            output = np.broadcast_to(background, (*WINDOW, channels))
        else:
            output = predict(window[np.newaxis])[0]
        for place, voxel in voxels:
            total[voxel] += output[place] * weights[place]
            norm[voxel] += weights[place]
    return total / norm[..., np.newaxis]


@pytest.mark.parametrize("accumulator", [HostAccumulator, DeviceAccumulator])
@pytest.mark.parametrize("weighting", ["gaussian", "constant"])
@pytest.mark.parametrize(("batch", "overlap"), [(1, 0.0), (3, 0.5), (4, 0.7)])
def test_equals_the_brute_force_loop(weighting, batch, overlap, accumulator):
    volume = np.random.default_rng(0).normal(size=(7, 13, 9, 3)).astype(np.float32)
    found = sliding_window(
        network,
        volume,
        WINDOW,
        (0, 0),
        overlap=overlap,
        weighting=weighting,
        batch=batch,
        accumulator=accumulator,
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force(volume, weighting, overlap), atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 13, 9), (9, 2, 4), (1, 1, 1), (4, 6, 5)])
@pytest.mark.parametrize("boxed", [False, True])
def test_a_volume_smaller_than_the_window_lies_in_air(shape, boxed):
    volume = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)
    found = sliding_window(network, volume, WINDOW, (0, 0), brain_box=boxed)
    np.testing.assert_allclose(found, brute_force(volume, "gaussian", 0.5), atol=1e-5)


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

    found = sliding_window(local, volume, WINDOW, (0, 0), overlap=overlap, batch=batch)
    assert sizes == {WINDOW}
    np.testing.assert_allclose(found, volume * 2 + 1, atol=1e-5)


def head_in_air():
    """A volume in whose middle there is a head, in one channel only, with air inside it, too."""
    volume = np.zeros((11, 19, 23, 3), np.float32)
    head = np.random.default_rng(3).normal(size=(6, 9, 7))
    head[2:4, 2:5, 3:5] = 0
    volume[4:10, 5:14, 13:20, 1] = head
    return volume, (slice(4, 10), slice(5, 14), slice(13, 20))


@pytest.mark.parametrize("kind", BACKGROUNDS)
@pytest.mark.parametrize("accumulator", [HostAccumulator, DeviceAccumulator])
def test_windows_of_air_are_background_without_a_prediction(kind, accumulator):
    volume, _ = head_in_air()
    seen = []

    def watched(windows):
        seen.extend(window.any() for window in windows)
        return network(windows)

    found = sliding_window(
        watched,
        volume,
        WINDOW,
        BACKGROUNDS[kind],
        overlap=0.3,
        batch=2,
        accumulator=accumulator,
    )
    everything = np.prod(
        [len(starts_of(n, w, 0.3)) for n, w in zip((11, 19, 23), WINDOW, strict=True)]
    )
    assert all(seen) and 0 < len(seen) < everything
    expected = brute_force(volume, "gaussian", 0.3, BACKGROUNDS[kind])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found[0, 0, 0], BACKGROUNDS[kind], atol=1e-6)


def test_windows_without_a_prompt_are_background_without_a_prediction():
    volume, box = head_in_air()
    volume[..., 0] += 1  # nothing is air
    volume[..., -1] = 0
    volume[(*box, -1)] = 1
    seen = []

    def watched(windows):
        seen.extend(window[..., -1].any() for window in windows)
        return network(windows)

    found = sliding_window(watched, volume, WINDOW, (0.25, 0.5), overlap=0, prompted=True)
    everything = sliding_window(network, volume, WINDOW, (0.25, 0.5), overlap=0)
    windows = np.prod([len(starts_of(n, w, 0)) for n, w in zip((11, 19, 23), WINDOW, strict=True)])
    assert all(seen) and 0 < len(seen) < windows
    np.testing.assert_allclose(found[0, 0, 0], (0.25, 0.5))
    np.testing.assert_allclose(found[6, 10, 16], everything[6, 10, 16], atol=1e-6)


@pytest.mark.parametrize("kind", BACKGROUNDS)
def test_windows_cover_the_brain_box_alone(kind):
    volume, box = head_in_air()
    found = sliding_window(network, volume, WINDOW, BACKGROUNDS[kind], brain_box=True)
    expected = np.broadcast_to(BACKGROUNDS[kind], found.shape).astype(float)
    expected[box] = brute_force(volume[box], "gaussian", 0.5, BACKGROUNDS[kind])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    nothing = sliding_window(None, 0 * volume, WINDOW, BACKGROUNDS[kind], brain_box=True)
    np.testing.assert_array_equal(nothing, np.broadcast_to(BACKGROUNDS[kind], found.shape))


def test_the_box_holds_every_signal():
    volume, box = head_in_air()
    assert brain_mask(volume)[0] == box
    assert brain_mask(0 * volume)[0] == (slice(0, 0),) * 3
    volume[10, 18, 22, 2] = np.nan
    assert brain_mask(volume)[0] == (slice(4, 11), slice(5, 19), slice(13, 23))


def test_the_limit_chooses_between_host_and_device():
    million = 2**20
    assert choose_accumulator(million, 4, limit=1 / 64, gpus=1) is DeviceAccumulator
    assert choose_accumulator(million + 1, 4, limit=1 / 64, gpus=1) is HostAccumulator
    assert choose_accumulator(million, 4, limit=1 / 64, gpus=0) is HostAccumulator
    assert choose_accumulator(1, 1, limit=0, gpus=1) is HostAccumulator


def test_memory_beyond_input_and_output_does_not_grow_with_the_volume():
    def peak(depth):
        volume = np.ones((depth, 12, 14, 2), np.float32)
        tracemalloc.start()
        result = sliding_window(lambda windows: windows, volume, WINDOW, (0, 0), batch=2)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - result.nbytes

    peak(10)
    small, large = peak(20), peak(120)
    assert large < small + 20_000, "a copy of the input would take 134,400 bytes more"
