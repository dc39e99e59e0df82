"""The input pipeline against MONAI, batchgeneratorsv2 (nnU-Net) and Albumentations, in one run.

The case of `../shared/data/brats21`, or a phantom of BraTS's size where that is missing, four times
over and in memory: MONAI's `CacheDataset`, arrays, `pipeline.cache=memory`. Each is a process of
its own; they take turns, and what counts is the median of the ratios of a round.

- light:   64 x 160 x 160 patches, three flips, scale and shift of intensities, as in MONAI's
           BraTS tutorial; MONAI's DataLoader with two workers, kerasseg on both cores.
- heavy:   the same, and rotation, zoom (p 0.2 each) and noise (p 0.15).
- nnunet:  4 x 128^3, nnU-Net v2's default transforms at its probabilities, one core.
- slices:  240 x 240 x 4 slices, flip (p 0.5), affine, elastic and noise (p 1), Albumentations in a
           PyTorch DataLoader with two workers, kerasseg on both cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasseg.tensorflow_setup import start_tensorflow

ROUNDS, SECONDS, COPIES = 3, 8.0, 4
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "brats21"
FLAT = ("model.dimensions=2", "pipeline.patch_size=[240,240]", "pipeline.patches_per_volume=16")
WARP = "{spatial: {rotation: 30, p_rotation: 0.2, scale: [0.7, 1.4], p_scale: 0.2}}"
LIGHT = "{flip: {}}, {scaling: {factor: [0.9, 1.1], p: 1.0}}, {brightness: {add: 0.1, p: 1.0}}"
BENT = (
    "{spatial: {rotation: 20, p_rotation: 1, scale: [0.8, 1.2], p_scale: 1, elastic: 0.02, "
    "p_elastic: 1}}"
)
JOBS: dict[str, tuple[str, float, tuple[str, ...], bool]] = {
    "light": ("monai", 3.0, (f"augment.transforms=[{LIGHT}]",), False),
    "heavy": (
        "monai",
        2.5,
        (f"augment.transforms=[{WARP}, {LIGHT}, {{gaussian_noise: {{p: 0.15}}}}]",),
        False,
    ),
    "nnunet": (
        "batchgeneratorsv2",
        2.0,
        ("augment.preset=nnunet", "pipeline.patch_size=[128,128,128]"),
        True,
    ),
    "slices": (
        "albumentations",
        1.5,
        (
            *FLAT,
            f"augment.transforms=[{BENT}, {{flip: {{axes: [width]}}}}, "
            "{gaussian_noise: {p: 1}}]",
        ),
        False,
    ),
}
"""The peer, what is asked for, our settings, whether on one core."""


def run() -> str:
    """Markdown table of patches a second and the median of the ratios."""
    with tempfile.TemporaryDirectory(prefix="kerasseg-bench-") as folder:
        found: dict[str, dict[str, list[float]]] = {job: {"own": [], "peer": []} for job in JOBS}
        _in_process("prepare", "own", folder, one_core=False)
        for _ in range(ROUNDS):
            for job, (_, _, _, one_core) in JOBS.items():
                for side, rates in found[job].items():
                    rates.append(_in_process(job, side, folder, one_core=one_core)["rate"])
    rows = []
    for job, sides in found.items():
        peer, wanted, _, one_core = JOBS[job]
        ratios = [a / b for a, b in zip(sides["own"], sides["peer"], strict=True)]
        ratio = statistics.median(ratios)
        rows.append(
            f"| {job} | {1 if one_core else 2} | {statistics.median(sides['own']):.1f} | "
            f"{peer} {statistics.median(sides['peer']):.1f} | {ratio:.1f} "
            f"({min(ratios):.1f} to {max(ratios):.1f}) | {wanted:.1f} | "
            f"{'holds' if ratio >= wanted else 'FAILS'} |"
        )
    return (
        f"## Patches a second against peers (median of {ROUNDS} rounds of {SECONDS:.0f} s)\n\n"
        "| | cores | kerasseg | peer | ratio | at least | |\n|---|---|---|---|---|---|---|\n"
        + "\n".join(rows)
    )


def _in_process(job: str, side: str, folder: str, *, one_core: bool) -> dict[str, Any]:
    cores = sorted(os.sched_getaffinity(0))[: 1 if one_core else 2]
    environment = os.environ | ({"OMP_NUM_THREADS": "1"} if one_core else {})
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.data_speed", job, side, folder],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode:
        sys.exit(f"benchmarks.data_speed {job} {side} failed with code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def experiment(folder: Path, *overrides: str) -> Any:
    """One case, from the store in `folder`."""
    from kerasseg.config.load import load_experiment

    data = (
        ["data.layout=brats_nifti", f"data.root={REAL}"]
        if REAL.is_dir()
        else ["data.phantom={cases: 1, shape: [155,240,240]}"]
    )
    return load_experiment(
        None, [*data, f"records.root={folder}/store", "split.overfit_check=true", *overrides]
    )


def prepare(folder: Path) -> None:
    """The store, and the normalised case as the peers take it: C, D, H, W and D, H, W."""
    from kerasseg.records.store import open_store

    store = open_store(experiment(folder))
    stored = store.load(next(iter(store.rows)))
    assert stored.case.label is not None
    image = np.zeros((4, *stored.full_shape), np.float32)
    label = np.zeros(stored.full_shape, np.uint8)
    box = tuple(
        slice(o, o + n) for o, n in zip(stored.offset, stored.case.label.shape, strict=True)
    )
    image[(slice(None), *box)] = stored.case.image.transpose(3, 0, 1, 2)
    label[box] = stored.case.label
    np.save(folder / "image.npy", image)
    np.save(folder / "label.npy", label)


def own(job: str, folder: Path) -> Iterator[int]:
    """Our batches of two."""
    start_tensorflow()
    from kerasseg.config.augment import transforms_of
    from kerasseg.pipeline.batches import TrainingBatches
    from kerasseg.pipeline.record_cache import open_cache
    from kerasseg.records.store import open_store

    wanted = experiment(folder, *JOBS[job][2], "pipeline.cache=memory")
    store = open_store(wanted)
    cases = list(store.rows) * COPIES
    batches = TrainingBatches(
        store,
        cases,
        wanted.pipeline,
        target=wanted.model.target,
        batch_size=2,
        seed=0,
        transforms=transforms_of(wanted.augment),
        cache=open_cache(wanted.pipeline, store, cases),
    )
    for image, _ in batches.dataset():
        yield int(image.shape[0])


def monai(job: str, folder: Path) -> Iterator[int]:
    """MONAI's cached data set and loader."""
    from monai import transforms as mt
    from monai.data import CacheDataset, DataLoader

    both = ["image", "label"]
    chosen: list[Any] = [mt.RandSpatialCropd(both, roi_size=(64, 160, 160), random_size=False)]
    if job == "heavy":
        angle = np.pi / 6
        modes = ("bilinear", "nearest")
        chosen += [
            mt.RandRotated(both, angle, angle, angle, prob=0.2, mode=modes),
            mt.RandZoomd(both, prob=0.2, min_zoom=0.7, max_zoom=1.4, mode=("trilinear", "nearest")),
        ]
    chosen += [mt.RandFlipd(both, prob=0.5, spatial_axis=axis) for axis in range(3)]
    chosen += [
        mt.RandScaleIntensityd("image", factors=0.1, prob=1.0),
        mt.RandShiftIntensityd("image", offsets=0.1, prob=1.0),
    ]
    if job == "heavy":
        chosen.append(mt.RandGaussianNoised("image", prob=0.15, std=0.3))
    arrays = {"image": np.load(folder / "image.npy"), "label": np.load(folder / "label.npy")[None]}
    loaded = mt.EnsureTyped(both)
    data = CacheDataset(
        [arrays] * COPIES, mt.Compose([loaded, *chosen]), cache_rate=1.0, progress=False
    )
    loader = DataLoader(data, batch_size=2, num_workers=2, shuffle=True, persistent_workers=True)
    while True:
        for batch in loader:
            yield int(batch["image"].shape[0])


def batchgeneratorsv2(job: str, folder: Path) -> Iterator[int]:
    """nnU-Net v2's training transforms (nnUNetTrainer.get_training_transforms), in this process.

    As nnU-Net does, a larger patch is cut out first, so that a turned one has no empty corners.
    """
    import torch
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    torch.set_num_threads(1)
    size, angle = (128, 128, 128), np.pi / 6

    def gamma(p_invert: float) -> Any:
        return GammaTransform(
            gamma=BGContrast((0.7, 1.5)),
            p_invert_image=p_invert,
            synchronize_channels=False,
            p_per_channel=1,
            p_retain_stats=1,
        )

    transforms = ComposeTransforms(
        [
            SpatialTransform(
                size,
                patch_center_dist_from_border=0,
                random_crop=False,
                p_elastic_deform=0,
                p_rotation=0.2,
                rotation=(-angle, angle),
                p_scaling=0.2,
                scaling=(0.7, 1.4),
                p_synchronize_scaling_across_axes=1,
                bg_style_seg_sampling=False,
            ),
            RandomTransform(
                GaussianNoiseTransform(
                    noise_variance=(0, 0.1), p_per_channel=1, synchronize_channels=True
                ),
                apply_probability=0.1,
            ),
            RandomTransform(
                GaussianBlurTransform(
                    blur_sigma=(0.5, 1.0),
                    synchronize_channels=False,
                    synchronize_axes=False,
                    p_per_channel=0.5,
                    benchmark=True,
                ),
                apply_probability=0.2,
            ),
            RandomTransform(
                MultiplicativeBrightnessTransform(
                    multiplier_range=BGContrast((0.75, 1.25)),
                    synchronize_channels=False,
                    p_per_channel=1,
                ),
                apply_probability=0.15,
            ),
            RandomTransform(
                ContrastTransform(
                    contrast_range=BGContrast((0.75, 1.25)),
                    preserve_range=True,
                    synchronize_channels=False,
                    p_per_channel=1,
                ),
                apply_probability=0.15,
            ),
            RandomTransform(
                SimulateLowResolutionTransform(
                    scale=(0.5, 1),
                    synchronize_channels=False,
                    synchronize_axes=True,
                    ignore_axes=None,
                    allowed_channels=None,
                    p_per_channel=0.5,
                ),
                apply_probability=0.25,
            ),
            RandomTransform(gamma(1), apply_probability=0.1),
            RandomTransform(gamma(0), apply_probability=0.3),
            MirrorTransform(allowed_axes=(0, 1, 2)),
        ]
    )
    larger = (205, 205, 205)  # nnU-Net's initial patch for 128^3; from memory, not checked here
    image, label = np.load(folder / "image.npy"), np.load(folder / "label.npy")[None]
    rng = np.random.default_rng(0)
    pads = [
        (max(p - n, 0) // 2, max(p - n, 0) - max(p - n, 0) // 2)
        for p, n in zip(larger, label.shape[1:], strict=True)
    ]
    while True:
        box = []
        for n, p in zip(label.shape[1:], larger, strict=True):
            start = int(rng.integers(max(n - p, 0) + 1))
            box.append(slice(start, start + min(n, p)))
        cut = (slice(None), *box)
        cropped, ids = (np.pad(array[cut], [(0, 0), *pads]) for array in (image, label))
        transforms(
            image=torch.from_numpy(cropped), segmentation=torch.from_numpy(ids.astype(np.int16))
        )
        yield 1


def albumentations(job: str, folder: Path) -> Iterator[int]:
    """Albumentations in a PyTorch DataLoader, every slice with brain."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2
    from torch.utils.data import DataLoader, Dataset

    image = np.load(folder / "image.npy").transpose(1, 2, 3, 0)
    kept = image.any(axis=(1, 2, 3))
    image = np.ascontiguousarray(image[kept])
    label = np.load(folder / "label.npy")[kept]
    transforms = A.Compose(
        [
            A.HorizontalFlip(p=0.5),
            A.Affine(rotate=(-20, 20), scale=(0.8, 1.2), p=1.0),
            A.ElasticTransform(alpha=40, sigma=10, p=1.0),
            A.GaussNoise(std_range=(0.1, 0.3), p=1.0),
        ]
    )

    class Slices(Dataset):
        def __len__(self) -> int:
            return len(image)

        def __getitem__(self, index: int) -> Any:
            done = transforms(image=image[index], mask=label[index])
            return done["image"], done["mask"]

    loader = DataLoader(
        Slices(),
        batch_size=2,
        num_workers=2,
        shuffle=True,
        persistent_workers=True,
        worker_init_fn=lambda _: cv2.setNumThreads(0),
    )
    while True:
        for pixels, _ in loader:
            yield int(pixels.shape[0])


PEERS: dict[str, Callable[[str, Path], Iterator[int]]] = {
    "monai": monai,
    "batchgeneratorsv2": batchgeneratorsv2,
    "albumentations": albumentations,
}


def main(job: str, side: str, place: str) -> None:
    """Print patches a second after a warm-up as JSON."""
    folder = Path(place)
    if job == "prepare":
        prepare(folder)
        print("{}")
        return
    source = own(job, folder) if side == "own" else PEERS[JOBS[job][0]](job, folder)
    until = time.perf_counter() + SECONDS / 2
    taken = 0
    while taken < 8 or time.perf_counter() < until:
        taken += next(source)
    started, taken = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        taken += next(source)
    print(json.dumps({"rate": taken / (time.perf_counter() - started)}), flush=True)
    os._exit(0)  # the loaders' workers would be waited for


if __name__ == "__main__":
    main(*sys.argv[1:])
