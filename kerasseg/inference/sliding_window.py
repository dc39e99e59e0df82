"""A volume of any size through a network of fixed window size."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from kerasseg.datasets.case import Box
from kerasseg.inference.accumulators import Accumulator, HostAccumulator
from kerasseg.inference.brain_box import brain_box as find_brain_box
from kerasseg.inference.window_grid import Start, WindowGrid, shared_part
from kerasseg.inference.window_weights import Weighting, window_weights


def sliding_window(
    predict: Callable[[np.ndarray], Any],
    volume: np.ndarray,
    window: Sequence[int],
    background: Sequence[float],
    *,
    overlap: float = 0.5,
    weighting: Weighting = "gaussian",
    batch: int = 1,
    context: int = 0,
    brain_box: bool = False,
    accumulator: Callable[[np.ndarray, np.ndarray], Accumulator] = HostAccumulator,
) -> np.ndarray:
    """Volume (D, H, W, C) -> weighted mean of the windows' predictions (D, H, W, K) float32.

    `predict` maps (B, *window, C) float32 to (B, *window, K); the last batch may be smaller.
    Windows overlap by at least the fraction `overlap` and are spread evenly from edge to edge. A
    volume smaller than the window is surrounded by zeros (air).

    background: the K probabilities of air. A window whose input is 0 throughout has them for
                certain and does not go through `predict`
    context:    `predict` is given that many planes more on both sides of the first axis,
                (B, d + 2 context, h, w, C), zeros outside the volume, and still returns
                (B, d, h, w, K)
    brain_box:  the windows are spread over the smallest box around all voxels that are not 0;
                outside of it everything is `background`

    Besides volume and result it takes the memory of a few windows, whatever the volume's size.
    """
    depth, height, width = window
    size = (depth, height, width)
    result = np.zeros((*volume.shape[:3], len(background)), np.float32)
    box = find_brain_box(volume) if brain_box else _whole(volume)
    if brain_box:
        _fill_outside(result, box, background)
    if box[0].stop == box[0].start:
        return result
    grid = WindowGrid(box, size, overlap)
    # The same of all windows: along an axis where the box is smaller there is one alone.
    inside, _ = shared_part(next(grid.starts()), size, box)
    weights = window_weights(size, weighting)[inside]
    certain = np.broadcast_to(np.asarray(background, np.float32), (*weights.shape, len(background)))
    sums = accumulator(result[box], weights)

    pending: list[tuple[Start, np.ndarray]] = []

    def flush() -> None:
        if pending:
            windows = [window[np.newaxis] for _, window in pending]
            predictions = predict(np.concatenate(windows) if len(windows) > 1 else windows[0])
            for (start, _), values in zip(pending, predictions, strict=True):
                sums.add(shared_part(start, size, box)[1], values[inside])
            pending.clear()

    for start in grid.starts():
        source = _read(volume, start, size, context)
        if source.any():
            pending.append((start, source))
            if len(pending) == batch:
                flush()
        elif any(background):
            sums.add(shared_part(start, size, box)[1], certain)
    flush()
    sums.finish()
    _divide(result, grid, weights)
    return result


def _whole(volume: np.ndarray) -> Box:
    depth, height, width = volume.shape[:3]
    return slice(0, depth), slice(0, height), slice(0, width)


def _fill_outside(result: np.ndarray, box: Box, background: Sequence[float]) -> None:
    for channel, value in enumerate(background):
        if value:
            result[..., channel] = value
            result[(*box, channel)] = 0


def _read(volume: np.ndarray, start: Start, size: Start, context: int) -> np.ndarray:
    """A window with its context, (d + 2 context, h, w, C) float32, zeros outside the volume."""
    first = (start[0] - context, *start[1:])
    length = (size[0] + 2 * context, *size[1:])
    inside, place = shared_part(first, length, _whole(volume))
    if all(part.stop - part.start == n for part, n in zip(inside, length, strict=True)):
        return np.asarray(volume[place], np.float32)
    window = np.zeros((*length, volume.shape[3]), np.float32)
    window[inside] = volume[place]
    return window


def _divide(result: np.ndarray, grid: WindowGrid, weights: np.ndarray) -> None:
    """Divide by the sum of the weights at each voxel, computed tile by tile to save memory.

    `weights` (a, b, c) are those of a window's part in the box.
    """
    for tile in grid.tiles():
        norm = np.zeros([part.stop - part.start for part in tile], np.float32)
        for start in grid.starts_over(tile):
            first = [max(s, part.start) for s, part in zip(start, grid.box, strict=True)]
            inside, place = shared_part(first, weights.shape, tile)
            norm[place] += weights[inside]
        for channel in range(result.shape[-1]):
            result[(*tile, channel)] /= norm
