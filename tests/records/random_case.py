"""Cases made of noise, for what must hold of every case."""

import numpy as np

from kerasseg.datasets.case import Case, Grid

GRID = Grid((9, 8, 7), np.array([[-1, 0, 0, 9], [0, 2, 0, -3], [0, 0, 3, 1], [0, 0, 0, 1]], float))


def random_case(
    shape: tuple[int, int, int],
    *,
    channels: int = 2,
    brain: float = 0.5,
    tumour: float = 0.3,
    seed: int = 0,
) -> Case:
    """A case of which a share of the voxels is brain, and another one, anywhere, labelled.

    One brain voxel in five lacks a signal in a channel, some in all.
    """
    rng = np.random.default_rng(seed)
    image = rng.normal(500, 90, (*shape, channels)).astype(np.float32)
    image[rng.random(shape) >= brain] = 0
    image[rng.random(image.shape) < 0.2] = 0
    label = np.where(rng.random(shape) < tumour, rng.integers(1, 4, shape), 0).astype(np.uint8)
    return Case(
        case_id=f"case_{seed}",
        patient_id="patient",
        image=image,
        label=label,
        spacing=(3.0, 2.0, 1.0),
        affine=GRID.our_affine,
        modalities=tuple(f"m{channel}" for channel in range(channels)),
        grid=GRID,
        attributes={"site": "Zürich", "age": "61"},
    )
