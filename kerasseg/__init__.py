"""kerasseg: brain tumour segmentation in MRI, from raw scans to served models, on Keras 3."""

from kerasseg import runtime

__version__ = "0.1.0"

runtime.set_flags()
