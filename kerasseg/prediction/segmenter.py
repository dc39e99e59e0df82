"""`Segmenter`: what predicts cases, in this process or on a server."""

from typing import Protocol

from kerasseg.datasets.case import Case
from kerasseg.prediction.prediction import Prediction
from kerasseg.settings.data import DataSettings


class Segmenter(Protocol):
    """What `predict_files` needs of a `Model`."""

    @property
    def data(self) -> DataSettings:
        """Which modalities it takes, and the ids of its data set."""

    @property
    def target(self) -> str:
        """A key of `anatomy.TARGETS`."""

    @property
    def members(self) -> int:
        """Over how many predictions the variance is taken."""

    def segment(self, case: Case, *, uncertainty: bool = False) -> Prediction:
        """The prediction of a raw case. Raises `UserError` for one that it does not take."""
