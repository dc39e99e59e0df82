"""kerasseg: brain tumour segmentation in MRI, from raw scans to served models, on Keras 3."""

import sys
from typing import TYPE_CHECKING, Any

from kerasseg import tensorflow_setup as runtime

if TYPE_CHECKING:
    from kerasseg.prediction.model import load as load

__version__ = "0.1.0"

runtime.set_flags()


def __getattr__(name: str) -> Any:
    """`kerasseg.load`, imported when it is asked for, so that `import kerasseg` stays light."""
    if name == "load":
        if "tensorflow" not in sys.modules:  # else its notices were seen already
            from kerasseg.tensorflow_setup import start_tensorflow

            start_tensorflow()
        from kerasseg.prediction.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
