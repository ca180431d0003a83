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
        self.before = 0.0

    def lap(self, name: str, apart: float = 0.0) -> None:
        """Ends a phase, which began when the one before ended.

        Args:
            apart: seconds of it that are counted elsewhere.
        """
        now = time.monotonic()
        self.phases[name] = round(now - self.last - apart, 1)
        self.last = now

    def add(self, before: dict[str, float]) -> None:
        """Counts what phases took in other processes, which the run has behind it."""
        for name, seconds in before.items():
            self.phases[name] = round(self.phases.get(name, 0.0) + seconds, 1)
        self.before += sum(before.values())

    @property
    def total(self) -> float:
        """Seconds since the start, and those of other processes."""
        return round(self.before + time.monotonic() - self.start, 1)
