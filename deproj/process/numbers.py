"""What passes for a number in Python: its own, numpy's, and tensors of one."""

from __future__ import annotations

import operator
from numbers import Real
from typing import Any

__all__ = ["as_number", "as_whole"]


def as_number(given: Any) -> float | None:
    """A number as Python's own; None for what is none."""
    if not isinstance(given, Real) and not (hasattr(given, "item") and getattr(given, "shape", None) == ()):
        return None
    try:
        return float(given)
    except (TypeError, ValueError, RuntimeError):
        return None


def as_whole(given: Any) -> int | None:
    """A whole number as Python's own; None for what is none."""
    try:
        return operator.index(given)
    except TypeError:
        return None
