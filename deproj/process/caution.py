"""Warnings that name the user's own line, not one of ours."""

from __future__ import annotations

import sys
import warnings

__all__ = ["caution"]


def caution(message: str) -> None:
    """Warns as of the line outside this package that led here."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == __package__.partition(".")[0]:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, stacklevel=level)
