"""What the seconds of a run were spent on."""

from __future__ import annotations

import time

__all__ = ["Clock"]


class Clock:
    """A stopwatch with laps.

    Attributes:
        phases: seconds by name, rounded to tenths.
    """

    def __init__(self) -> None:
        self.start = self.last = time.monotonic()
        self.phases: dict[str, float] = {}

    def lap(self, name: str, apart: float = 0.0) -> None:
        """Ends a phase, which began when the one before ended.

        Args:
            apart: seconds of it that are counted elsewhere.
        """
        now = time.monotonic()
        self.phases[name] = round(now - self.last - apart, 1)
        self.last = now

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return round(time.monotonic() - self.start, 1)
