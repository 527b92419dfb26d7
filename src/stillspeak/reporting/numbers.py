"""Numbers as a report shows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

DASH = "–"
"""Stands where there is no number."""


def number(value: float | None, *, percent: bool = False, sign: bool = False) -> str:
    """About three significant digits; ``percent`` multiplies by 100, ``sign`` shows a plus."""
    if value is None:
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    value = 100 * value if percent else value
    size = abs(value)
    digits = 1 if percent or size >= 100 else 2 if size >= 10 else 3
    text = f"{value:.{digits}f}" if size >= 0.01 or size == 0 else f"{value:.2g}"
    return f"{'+' if sign and value > 0 else ''}{text}".replace("-", "−")


def fixed(value: float | None, digits: int = 2) -> str:
    """A fixed number of decimals, without a minus sign before zero."""
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def interval(pair: Sequence[float] | None, write: Callable[[float], str] = number) -> str:
    """Both ends of an interval, each as ``write`` shows it."""
    return DASH if pair is None else " to ".join(write(end) for end in pair)
