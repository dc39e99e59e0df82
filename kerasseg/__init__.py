"""kerasseg: brain tumour segmentation in MRI, from raw scans to served models, on Keras 3.

Whole runs
    train(config)                  train one network, write its run folder and report
    evaluate(run)                  segment and score the cases of one side of its split
    predict(runs, scans, output)   segment a folder of scans into files
    load(run)                      a finished run that segments one scan at a time

Parts for a loop of your own
    open_store(config)             a converted data set as tf.data batches
    models.unet(channels)          the U-Net as a functional Keras model
    losses.SegmentationLoss        Dice, focal and seven others as one Keras loss
    metrics.SegmentationMetrics    Dice, IoU, precision and recall as one Keras metric
    metrics.case_metrics           every metric of one whole scan

Servers
    Client(server)                 segment scans by a TensorFlow Serving server

Each of them is imported when it is asked for, so that `import kerasseg` is light. Mistakes that a
user can mend are raised as `kerasseg.errors.UserError`, whose text says what to do.

docs/notebook.md shows them in a notebook, docs/extending.md how to add layouts, networks, losses,
transforms and metrics of your own. On the command line: `kerasseg --help`.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

from kerasseg import tensorflow_setup as runtime

if TYPE_CHECKING:
    from kerasseg import losses as losses
    from kerasseg import metrics as metrics
    from kerasseg import models as models
    from kerasseg.api import evaluate as evaluate
    from kerasseg.api import open_store as open_store
    from kerasseg.api import predict as predict
    from kerasseg.api import train as train
    from kerasseg.prediction.model import load as load
    from kerasseg.serving.client import Client as Client

__version__ = "0.1.0"

__all__ = [
    "Client",
    "evaluate",
    "load",
    "losses",
    "metrics",
    "models",
    "open_store",
    "predict",
    "train",
]

_HOMES = {
    "Client": "kerasseg.serving.client",
    "load": "kerasseg.prediction.model",
    **dict.fromkeys(("evaluate", "open_store", "predict", "train"), "kerasseg.api"),
}
"""Name -> the module that it is imported from when it is asked for; others are packages."""

runtime.set_flags()


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for, so that `import kerasseg` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if "tensorflow" not in sys.modules:  # else its notices were seen already
        from kerasseg.tensorflow_setup import start_tensorflow

        start_tensorflow()
    if name not in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
