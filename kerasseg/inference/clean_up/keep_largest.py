"""Keep the largest of several."""

import numpy as np

from kerasseg.inference.clean_up.components import label_components


def keep_largest(mask: np.ndarray) -> np.ndarray:
    """Mask (D, H, W) with its largest connected component alone; of equals the first."""
    components, sizes = label_components(mask)
    return (components == sizes.argmax()) & mask
