"""What `kerasseg predict` does, with numpy and onnxruntime alone, as the JSON beside the file says.

    python onnx_predict.py brain.onnx scan.npy label.npy

scan.npy holds raw intensities (D, H, W, C) in the voxel size that the network was trained on: axes
grow to superior, posterior, left, channels are `modalities`, air is 0. label.npy has its ids.
"""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime


def predict(path, scan):
    """Return probabilities (D, H, W, K) float32 and the label (D, H, W) of raw intensities."""
    sheet = json.loads(Path(path).with_suffix(".json").read_text())
    rules, options, clean_up = sheet["inference"], sheet["evaluation"], sheet["postprocessing"]
    unused = [
        sheet["spacing"],
        sheet["size"],
        *(clean_up[k] for k in clean_up if k != "thresholds"),
    ]
    if any(unused):
        raise SystemExit(
            f"{path}: resampling and clean-up are not in this script: kerasseg predict"
        )
    network = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    volume, axis = np.zeros(scan.shape, np.float32), rules["slice_axis"]
    for channel, signal in enumerate(np.moveaxis(scan != 0, -1, 0)):
        values = scan[signal, channel].astype(np.float64)
        if "percentile" in sheet["normalisation"]:
            low, high = np.percentile(values, (0.5, 99.5))
            volume[signal, channel] = np.clip((values - low) / (high - low), 1 / 1024, 1)
            continue
        mean, deviation = values.mean(), values.std() + 1e-8
        if not sheet["skull_stripped"]:
            volume[..., channel] = (scan[..., channel].min() - mean) / deviation
        volume[signal, channel] = (values - mean) / deviation
    volume = np.moveaxis(volume.astype(np.float16).astype(np.float32), axis or 0, 0)
    darkest = np.float32(0) if sheet["skull_stripped"] else volume.min((0, 1, 2))
    volume = volume - darkest  # so that air is 0 for all but the network
    window, context = np.array(rules["window"]), rules["context"]
    inside = np.argwhere((volume != 0).any(-1) | (not options["brain_box"]))
    first, length = inside.min(0), np.ptp(inside, 0) + 1
    weights = np.ones(window, np.float32)
    if options["weighting"] == "gaussian":
        x, y, z = (np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in window)
        weights = np.einsum("i,j,k->ijk", x, y, z)
        weights = np.maximum(weights / weights.max(), 1e-3)
    slack, step = length - window, np.maximum((window * (1 - options["overlap"])).astype(int), 1)
    gaps, middle = -(-slack.clip(0) // step), first - (-slack).clip(0) // 2
    axes = [
        [int(np.round(i * max(slack[a], 0) / max(gaps[a], 1))) for i in range(gaps[a] + 1)]
        for a in range(3)
    ]
    edge = window + context  # of zeros, around everything
    padded = np.pad(volume, [(n, n) for n in edge] + [(0, 0)])
    total = np.zeros((*padded.shape[:3], len(rules["outside"]) + 1))  # and the sum of the weights
    for start in itertools.product(*axes):
        low = middle + start + edge
        place = tuple(slice(n, n + size) for n, size in zip(low, window, strict=True))
        patch = padded[(slice(low[0] - context, low[0] + window[0] + context), *place[1:])]
        found = np.broadcast_to(np.float64(rules["outside"]), (*window, total.shape[-1] - 1))
        if patch.any():
            patch = patch + darkest
            patch = patch if axis is None else np.concatenate(patch, axis=-1)
            results = []
            for turn in rules["orientations"]:
                order, mirrored = turn["order"], np.flatnonzero(turn["mirrored"])
                turned = np.flip(patch.transpose(*order, len(order)), mirrored)[np.newaxis]
                (result,) = network.run(None, {"patches": np.ascontiguousarray(turned)})
                results.append(
                    np.flip(result[0], mirrored).transpose(*np.argsort(order), len(order))
                )
            found = np.mean(results, axis=0).reshape(found.shape)
        total[place] += (
            np.concatenate([found, np.ones_like(found[..., :1])], -1) * weights[..., None]
        )
    box = tuple(slice(n, n + size) for n, size in zip(first, length, strict=True))
    there = tuple(slice(b.start + n, b.stop + n) for b, n in zip(box, edge, strict=True))
    probabilities = np.zeros((*volume.shape[:3], total.shape[-1] - 1)) + rules["outside"]
    probabilities[box] = total[there][..., :-1] / total[there][..., -1:]
    if options["air_is_background"]:
        probabilities[(volume == 0).all(-1)] = rules["outside"]
    probabilities = np.moveaxis(probabilities.astype(np.float32), 0, axis or 0)
    masks = np.arange(total.shape[-1] - 1) == probabilities.argmax(-1)[..., np.newaxis]
    if rules["thresholds"] is not None:
        masks = probabilities >= np.float32(rules["thresholds"])
    label = np.full(scan.shape[:3], rules["label"]["background"], np.uint8)
    for name, value in rules["label"]["written_over"]:
        label[masks[..., sheet["regions"].index(name)]] = value
    return probabilities, label


if __name__ == "__main__":
    np.save(sys.argv[3], predict(sys.argv[1], np.load(sys.argv[2]))[1])
