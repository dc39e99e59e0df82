"""How many lesions were found, invented and missed."""

from dataclasses import dataclass

from kerasseg.metrics.components import Components


@dataclass(frozen=True)
class LesionCounts:
    """Lesions are connected components (26 neighbours) of a mask.

    found:    of the truth, with at least one predicted voxel (true positives)
    invented: of the prediction, without a voxel of the truth (false positives)
    missed:   of the truth, without a predicted voxel (false negatives)
    """

    found: int
    invented: int
    missed: int

    @classmethod
    def count(cls, truth: Components, prediction: Components) -> "LesionCounts":
        """Of the components of two masks of one shape."""
        found = truth.touched_by(prediction.mask)
        right = prediction.touched_by(truth.mask)
        return cls(found, prediction.number - right, truth.number - found)
