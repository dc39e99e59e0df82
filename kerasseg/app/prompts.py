"""Points and boxes on a slice of a scan, which a SAM answers from the slice's stored embedding."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kerasseg.app.sessions import Scan, mapped
from kerasseg.config.experiment import Experiment
from kerasseg.errors import UserError

if TYPE_CHECKING:
    from kerasseg.prediction.model import LoadedRun

Place = tuple[int, int, int]


def takes_prompts(experiment: Experiment) -> bool:
    """Return whether a visitor can point at a tumour for a run: a SAM of whole axial slices."""
    model, data = experiment.model, experiment.data
    whole = data.size is None and data.spacing is None
    axial = experiment.pipeline.slices.axis == "axial"
    return model.network == "sam" and model.target == "binary" and whole and axial


class Prompter:
    """A SAM that is asked by points and boxes. Only the queue's thread uses it.

    `run` is a loaded run for which `takes_prompts` holds.
    """

    def __init__(self, run: "LoadedRun") -> None:
        import keras
        import tensorflow as tf

        self._run = run
        network = run.predictor.network
        encoder = keras.Model(network.inputs[0], network.get_layer("bottleneck").output)
        self._encode = tf.function(encoder, autograph=False)
        self._decoders: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def answer(self, scan: Scan, number: int, corners: Sequence[Place]) -> np.ndarray:
        """Return the mask (h, w) of what lies at a point, or in a box, of an axial slice.

        Raises `UserError` if the scan lacks a modality of the run, or a corner lies outside of it.

        Args:
            scan: The scan. The slice's embedding is stored in its folder, and read from there the
                next time.
            number: The number of the run.
            corners: One voxel (d, h, w), or two opposite corners of a box on one slice.
        """
        shape = scan.case.image.shape[:3]
        inside = all(0 <= at < n for c in corners for at, n in zip(c, shape, strict=True))
        if not inside or len({corner[0] for corner in corners}) > 1:
            raise UserError("A point lies on the scan, and a box on one of its axial slices.")
        low, high = np.min(corners, axis=0), np.max(corners, axis=0)
        asked = np.zeros((1, *shape[1:], 1), np.float32)
        asked[0, low[1] : high[1] + 1, low[2] : high[2] + 1] = 1
        decode = self._decoder(shape[1:], "box" if len(corners) > 1 else "points")
        found = decode(self._embedding(scan, number, int(low[0])), asked)
        mask: np.ndarray = np.asarray(found)[0, ..., -1] >= self._run.predictor.settings.threshold
        return mask

    def _embedding(self, scan: Scan, number: int, index: int) -> np.ndarray:
        """Return the embedding (1, n, n, C) of a slice."""
        path = scan.folder / f"embedding_{number}_{index}.npy"
        if not path.exists():
            prepared = scan.folder / f"prepared_{number}.npy"
            if not prepared.exists():
                mapped(prepared, self._run.prepare(scan.case).image)
            image = np.load(prepared, mmap_mode="r")[index : index + 1]
            mapped(path, np.asarray(self._encode(np.asarray(image, np.float32))))
        found: np.ndarray = np.load(path)
        return found

    def _decoder(self, size: Sequence[int], kind: Literal["box", "points"]) -> Callable[..., Any]:
        import tensorflow as tf

        from kerasseg.models.sam.network import after_encoder

        if (key := (*size, kind)) not in self._decoders:
            model = self._run.experiment.model
            changes = {"prompt": kind, "box_margin": 0.0, "points": 1}
            settings = model.model_copy(update={"sam": model.sam.model_copy(update=changes)})
            network = after_encoder(self._run.predictor.network, settings, size)
            self._decoders[key] = tf.function(
                lambda embedding, asked: network([embedding, asked], training=False),
                autograph=False,
            )
        return self._decoders[key]
