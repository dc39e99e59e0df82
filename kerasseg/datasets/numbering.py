"""Slices that must be there, once each."""

from collections.abc import Iterable


def ranges(numbers: Iterable[int]) -> str:
    """[3, 4, 5, 9] -> '3-5, 9'."""
    parts: list[list[int]] = []
    for n in sorted(numbers):
        if parts and n == parts[-1][-1] + 1:
            parts[-1].append(n)
        else:
            parts.append([n])
    return ", ".join(f"{p[0]}-{p[-1]}" if len(p) > 1 else str(p[0]) for p in parts)
