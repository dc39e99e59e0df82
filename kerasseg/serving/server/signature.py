"""`Spec`: what a signature says of one of its tensors."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """dtype: NumPy's name of it, or "string". shape: None for any size; None as a whole for any
    rank."""

    dtype: str
    shape: tuple[int | None, ...] | None

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether an array of `shape` fits."""
        if self.shape is None:
            return True
        if len(shape) != len(self.shape):
            return False
        pairs = zip(shape, self.shape, strict=True)
        return all(wanted in (None, size) for size, wanted in pairs)

    @property
    def shape_in_words(self) -> str:
        """Such as (any, any, any, 4)."""
        if self.shape is None:
            return "any shape"
        sizes = ["any" if size is None else str(size) for size in self.shape]
        return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
