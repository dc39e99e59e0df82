"""Synthetic multi-modal brains with tumours: real enough to train on, free to share.

A skull-stripped ellipsoid brain with cortex, white matter, ventricles and deep grey nuclei; a
tumour of irregular shape with necrotic core, enhancing rim and edema; and what makes real scans
hard: a bias field, Rician noise, changing contrast, enhancing vessels and bright white-matter
spots that are no tumour. Of eight phantoms in a row six have all three sub-regions, one has no
enhancing part and one has no tumour.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from kerasseg import anatomy
from kerasseg.anatomy import ED, ET, FLAIR, NCR, T1, T1CE, T2
from kerasseg.config.data import DataSettings
from kerasseg.datasets.case import Case, lps_grid

_WHITE, _GREY, _CSF, _VESSEL, _SPOT = range(10, 15)

_INTENSITY: dict[str, dict[int, float]] = {
    T1: {_WHITE: 0.80, _GREY: 0.62, _CSF: 0.28, _VESSEL: 0.60, _SPOT: 0.70}
    | {NCR: 0.42, ED: 0.62, ET: 0.60},
    T1CE: {_WHITE: 0.80, _GREY: 0.64, _CSF: 0.28, _VESSEL: 1.10, _SPOT: 0.74}
    | {NCR: 0.42, ED: 0.62, ET: 1.02},
    T2: {_WHITE: 0.44, _GREY: 0.58, _CSF: 1.00, _VESSEL: 0.36, _SPOT: 0.70}
    | {NCR: 0.86, ED: 0.78, ET: 0.64},
    FLAIR: {_WHITE: 0.48, _GREY: 0.62, _CSF: 0.22, _VESSEL: 0.48, _SPOT: 0.80}
    | {NCR: 0.54, ED: 0.79, ET: 0.72},
}
"""Relative brightness of each tissue per modality, before bias field, noise and scanner gain."""

_EDEMA_REACH_IN_CORTEX = 1.25
"""Edema spreads along white matter; in cortex the same distance counts this much more."""


@dataclass(frozen=True)
class PhantomSource:
    """Phantom number `index` of a seed; it is made when it is loaded."""

    case_id: str
    patient_id: str
    index: int
    shape: tuple[int, int, int]
    seed: int
    modalities: tuple[str, ...] = anatomy.MODALITIES
    files: tuple[Path, ...] = ()

    def load(self) -> Case:
        image, label = make_phantom(self.shape, self.seed, self.index)
        channels = [anatomy.MODALITIES.index(m) for m in self.modalities]
        depth, height, width = self.shape
        grid = lps_grid((width, height, depth))
        return Case(
            case_id=self.case_id,
            patient_id=self.patient_id,
            image=np.ascontiguousarray(image[..., channels]),
            label=label,
            spacing=grid.spacing,
            affine=grid.our_affine,
            modalities=self.modalities,
            grid=grid,
        )


def discover(settings: DataSettings) -> list[PhantomSource]:
    """Return the phantoms that `data.phantom` asks for."""
    phantom = settings.phantom
    names = [f"phantom_{index:04d}" for index in range(phantom.cases)]
    return [
        PhantomSource(name, name, index, phantom.shape, phantom.seed, settings.modalities)
        for index, name in enumerate(names)
    ]


def make_phantom(
    shape: tuple[int, int, int], seed: int, index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Make one phantom: image (D, H, W, 4) float32 in `anatomy.MODALITIES` order, label (D, H, W).

    The same arguments give the same voxels. Air is exactly 0, the brain above 0.
    """
    rng = np.random.default_rng([seed, index])
    grid = _coordinates(shape, rng)
    brain, tissue = _anatomy(grid, rng)
    label = np.zeros(shape, np.uint8)
    kind = index % 8
    if kind != 7:
        label = _tumour(grid, brain, tissue, rng, enhancing=kind != 6)
    tissue = np.where(label > 0, label, tissue)
    image = np.stack(
        [_scan(_INTENSITY[m], tissue, brain, rng) for m in anatomy.MODALITIES], axis=-1
    )
    return image, label


def _coordinates(shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
    """Return positions (3, D, H, W) in the head; -1..1 spans the brain, slightly tilted."""
    axes = [np.linspace(-1, 1, n) for n in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"))
    angles = rng.normal(0, 0.08, 3)
    rotation = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = [k for k in range(3) if k != axis]
        turn = np.eye(3)
        turn[[i, j], [i, j]] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        rotation = rotation @ turn
    size = rng.uniform(0.82, 0.92, (3, 1, 1, 1))
    shift = rng.uniform(-0.04, 0.04, (3, 1, 1, 1))
    return (np.einsum("ij,jdhw->idhw", rotation, grid) - shift) / size


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], nodes: int) -> np.ndarray:
    """Draw a smooth field of mean 0 and standard deviation 1, with `nodes` knots along an axis."""
    coarse = rng.standard_normal((nodes,) * len(shape))
    field = ndimage.zoom(coarse, [n / nodes for n in shape], order=3, mode="grid-constant")
    return (field - field.mean()) / field.std()


def _ellipsoid(grid: np.ndarray, centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    offsets = [(g - c) / r for g, c, r in zip(grid, centre, radii, strict=True)]
    return np.sqrt(sum(o**2 for o in offsets))


def _anatomy(grid: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw the brain mask and the tissue ids (D, H, W)."""
    shape = grid.shape[1:]
    radius = _ellipsoid(grid, (0, 0, 0), (1, 1, 1))
    folds = _smooth(rng, shape, 12)
    brain = radius + 0.02 * _smooth(rng, shape, 5) < 1
    tissue = np.full(shape, _WHITE)
    tissue[radius > 0.82 + 0.09 * folds] = _GREY
    tissue[radius > 0.97 + 0.03 * folds] = _CSF
    # The cleft between the hemispheres, then nuclei and ventricles left and right of it.
    tissue[(np.abs(grid[2]) < 0.03) & (radius > 0.55)] = _CSF
    for side in (-1, 1):
        nucleus = _ellipsoid(grid, (-0.05, -0.02, 0.30 * side), (0.20, 0.24, 0.12))
        tissue[nucleus < 1] = _GREY
        horn = _ellipsoid(grid, (0.08, 0.04, 0.13 * side), (0.17, 0.42, 0.08))
        tissue[horn + 0.08 * folds < 1] = _CSF
    for _ in range(rng.integers(7, 14)):
        place = rng.normal(0, 1, 3)
        place *= rng.uniform(0.3, 0.85) / np.linalg.norm(place)
        spot = _ellipsoid(grid, tuple(place), tuple(rng.uniform(0.06, 0.14, 3)))
        tissue[(spot < 1) & (tissue == _WHITE)] = _SPOT
    for _ in range(rng.integers(5, 9)):
        tissue[_vessel(grid, rng) & (radius < 0.98)] = _VESSEL
    return brain, tissue


def _vessel(grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw a thin tube along a random line."""
    point = rng.uniform(-0.7, 0.7, (3, 1, 1, 1))
    along = rng.normal(0, 1, 3)
    along /= np.linalg.norm(along)
    offset = grid - point
    position = np.einsum("i,idhw->dhw", along, offset)
    distance = np.sqrt(np.maximum((offset**2).sum(0) - position**2, 0))
    return (distance < rng.uniform(0.03, 0.05)) & (np.abs(position) < rng.uniform(0.3, 0.8))


def _tumour(
    grid: np.ndarray,
    brain: np.ndarray,
    tissue: np.ndarray,
    rng: np.random.Generator,
    *,
    enhancing: bool,
) -> np.ndarray:
    """Draw canonical labels (D, H, W): core, rim and edema around one centre."""
    shape = grid.shape[1:]
    centre = rng.normal(0, 1, 3)
    centre *= rng.uniform(0.25, 0.6) / np.linalg.norm(centre)
    distance = _ellipsoid(grid, tuple(centre), tuple(rng.uniform(0.85, 1.15, 3)))
    distance = distance * (1 + 0.12 * _smooth(rng, shape, 7) + 0.06 * _smooth(rng, shape, 12))
    reach = rng.uniform(0.42, 0.62)
    core = reach * rng.uniform(0.58, 0.70)
    necrosis = core * (rng.uniform(0.58, 0.70) if enhancing else 1.0)
    spread = distance * (1 + 0.15 * _smooth(rng, shape, 6))
    spread = np.where(tissue == _GREY, spread * _EDEMA_REACH_IN_CORTEX, spread)
    label = np.zeros(shape, np.uint8)
    label[(spread < reach) & (tissue != _CSF)] = ED
    label[distance < core] = ET if enhancing else NCR
    label[distance < necrosis] = NCR
    label[~brain] = 0
    return label


def _scan(
    intensity: dict[int, float], tissue: np.ndarray, brain: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Draw one modality (D, H, W) float32: contrast, blur, bias field, Rician noise and gain."""
    image = np.zeros(tissue.shape)
    for tissue_id, brightness in intensity.items():
        image[tissue == tissue_id] = brightness + rng.normal(0, 0.02)
    image += 0.03 * _smooth(rng, tissue.shape, 9)
    image = ndimage.gaussian_filter(image, 0.55)
    image *= np.exp(0.19 * _smooth(rng, tissue.shape, 3))
    sigma = rng.uniform(0.04, 0.07)
    real, imaginary = rng.normal(0, sigma, (2, *tissue.shape))
    image = np.hypot(np.maximum(image, 0.05) + real, imaginary)
    gain = rng.uniform(300, 1500)
    return np.where(brain, np.maximum(image * gain, 1.0), 0.0).astype(np.float32)
