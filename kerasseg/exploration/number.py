"""Numbers as a person writes them."""


def number(value: float) -> str:
    """Three digits, or all of a large number before the point: 0.0123, 12.3, 12,345."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
