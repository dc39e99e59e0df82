"""`python -m benchmarks sliding_window`: a whole BraTS case against MONAI's sliding window.

240 x 240 x 155 voxels, four modalities, the same 3-D U-Net of 1.4 M parameters on both sides,
windows of 96^3, overlap 0.5, Gaussian weights, one window per forward pass, float32, all cores;
from the normalised array to the probabilities. Fresh processes take turns. The case is
BraTS2021_00006 where it is there (../shared/data), else noise in a box of the size of its brain.
`python -m benchmarks.sliding_window monai case.npy 4` measures one side, with batches of 4.
"""

import json
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.subprocess_json import measure
from benchmarks.torch_unet import torch_unet

ROUNDS = 2
WINDOW, OVERLAP = (96, 96, 96), 0.5
FEATURES, BOTTLENECK = (8, 16, 32, 64), 128
CASE = Path(__file__).parents[2] / "shared" / "data" / "brats21"
SHAPE, BRAIN = (155, 240, 240), (slice(0, 136), slice(36, 213), slice(49, 183))
"""Shape and brain of a case that is made up; they are those of BraTS2021_00006."""
NAMES = ("kerasseg_box", "kerasseg_whole", "monai")


def run() -> str:
    """Return a Markdown table of medians over `ROUNDS` rounds."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in NAMES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.npy"
        kind = measure("benchmarks.sliding_window", "prepare", str(path))["case"]
        for _ in range(ROUNDS):
            for name, measured in results.items():
                measured.append(measure("benchmarks.sliding_window", name, str(path)))
    rows = []
    for name, measured in results.items():
        pairs = list(zip(measured, results["monai"], strict=True))
        ratios = [ours["seconds"] / theirs["seconds"] for ours, theirs in pairs]
        seconds = statistics.median(each["seconds"] for each in measured)
        processor = statistics.median(each["processor"] for each in measured)
        peak = max(each["peak_gib"] for each in measured)
        own = max(each["own_gib"] for each in measured)
        rows.append(
            f"| {name} | {seconds:.1f} s | {statistics.median(ratios):.2f} ({min(ratios):.2f} to "
            f"{max(ratios):.2f}) | {processor:.1f} s | {peak:.2f} GiB | {own:.2f} GiB |"
        )
    return (
        f"## Sliding window over a whole case, {kind} (median of {ROUNDS})\n\n"
        "| | time | time / MONAI's in the same round | of the processor | peak memory of the "
        "process | of it not mapped from files |\n|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def prepare(path: Path) -> dict[str, str]:
    """Write the normalised case (D, H, W, 4) float32 and return its name."""
    import numpy as np

    from kerasseg.config.load import load_experiment
    from kerasseg.datasets.discovery import discover
    from kerasseg.records.normalise import z_score

    if CASE.is_dir():
        options = ["data.layout=brats_nifti", f"data.root={CASE}"]
        source = discover(load_experiment(None, options).data)[0]
        np.save(path, z_score(source.load().image)[0])
        return {"case": source.case_id}
    volume = np.zeros((*SHAPE, 4), np.float32)
    volume[BRAIN] = np.random.default_rng(0).normal(size=volume[BRAIN].shape)
    np.save(path, volume)
    return {"case": "made up"}


def kerasseg_window(
    path: Path, batch: int, *, brain_box: bool
) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return functions that take one window, to warm up, and the whole case through `Predictor`."""
    from kerasseg.tensorflow_setup import start_tensorflow

    start_tensorflow()
    import numpy as np

    from kerasseg.config.evaluation import EvaluationSettings
    from kerasseg.config.model import ModelSettings
    from kerasseg.config.pipeline import PipelineSettings
    from kerasseg.inference.predictor import Predictor
    from kerasseg.models.unet import unet

    network = unet(ModelSettings(features=FEATURES, bottleneck=BOTTLENECK), 4)
    settings = EvaluationSettings(overlap=OVERLAP, window_batch=batch, brain_box=brain_box)
    pipeline = PipelineSettings(patch_size=WINDOW)
    predictor = Predictor(network, pipeline, settings, target="subregions")
    volume, small = np.load(path), np.ones((*WINDOW, 4), np.float32)
    return lambda: predictor.probabilities(small), lambda: predictor.probabilities(volume)


def monai_window(path: Path, batch: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Return the same two functions with `monai.inferers.sliding_window_inference`."""
    # MONAI imports TensorFlow where it is installed, which would count as memory of its own.
    for module in ("tensorflow", "tensorboard", "keras"):
        sys.modules[module] = None  # type: ignore[assignment]
    import numpy as np
    import torch
    from monai.inferers import sliding_window_inference

    network = torch_unet(FEATURES, BOTTLENECK).eval()
    torch.set_grad_enabled(False)
    volume = torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.load(path), -1, 0))[None])

    def infer(image: torch.Tensor) -> torch.Tensor:
        return sliding_window_inference(
            image, WINDOW, batch, network, overlap=OVERLAP, mode="gaussian"
        )

    return lambda: infer(torch.ones((1, 4, *WINDOW))), lambda: infer(volume)


def main(name: str, path: Path, batch: int = 1) -> None:
    """Print the seconds of one case and the peak memory of this process as JSON."""
    if name == "prepare":
        print(json.dumps(prepare(path)))
        return
    if name == "monai":
        warm_up, whole = monai_window(path, batch)
    else:
        warm_up, whole = kerasseg_window(path, batch, brain_box=name == "kerasseg_box")
    warm_up()
    started, processor = time.perf_counter(), time.process_time()
    result = whole()
    seconds, processor = time.perf_counter() - started, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    assert 0 <= float(result.min()) <= float(result.max()) <= 1.001  # rounding
    own = peak - mapped_files()
    measured = {"seconds": seconds, "processor": processor, "peak_gib": peak, "own_gib": own}
    print(json.dumps(measured))


def mapped_files() -> float:
    """Return the GiB of this process that are libraries mapped from disk."""
    lines = Path("/proc/self/status").read_text().splitlines()
    pages = next(line for line in lines if line.startswith("RssFile"))
    return int(pages.split()[1]) / 2**20


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
