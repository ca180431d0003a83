"""Settings over several training seeds: means, intervals and paired differences, from evaluations.

A setting has S runs that differ in their seed alone. As in `deproj.measure.metrics`, a number is Σ a / Σ b, here over seeds and
prompts. Its 95 % interval is put together of two: a percentile bootstrap over prompts, the same ones for all seeds, and
Student's t over the seeds, half-widths added as squares. (A bootstrap over three seeds is no wider than from the least to the
largest, and covers some 75 % where seeds dominate.) With fewer than three seeds, which are too few for that, the interval
is of the prompts alone and does not cover training again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from deproj.runs.records import NEGATIVE, SHARES, Measured

__all__ = ["FEWEST", "Estimate", "difference", "estimate", "signed"]

RESAMPLES = 2000
#: Training seeds that an interval over seeds takes.
FEWEST = 3


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}, {self.high:.3f})"

    @property
    def signed(self) -> str:
        """Of a difference."""
        return f"{signed(self.value)} ({signed(self.low)}, {signed(self.high)})"


def signed(value: float) -> str:
    """A difference with its sign; 0.000 for one that rounds to it."""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text


def parts(runs: Sequence[Measured], measure: str) -> np.ndarray | None:
    """a and b of each run and prompt, (2, S, N), or None where a run lacks the measure."""
    raw = [run.raw.get(measure) for run in runs]
    if any(r is None for r in raw) or not raw:
        return None
    return np.array(raw, float).transpose(1, 0, 2)


#: Student's t, 97.5 %, for 1 to 10 degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@lru_cache(maxsize=8)
def resamples(n: int, seed: int = 0) -> np.ndarray:
    """How often each of n prompts is drawn in each resample, (n, R)."""
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    return np.ascontiguousarray(drawn.T, float)


def of_prompts(both: np.ndarray) -> np.ndarray:
    """Σ a / Σ b of each resample of prompts, (R,); nan where a resample has nothing to measure."""
    above, below = both.sum(1) @ resamples(both.shape[2])
    return np.divide(above, below, out=np.full(RESAMPLES, np.nan), where=below != 0)


def of_seeds(both: np.ndarray) -> np.ndarray:
    """Σ a / Σ b of each seed, (S,)."""
    return both[0].sum(1) / both[1].sum(1)


def half_width(values: np.ndarray) -> float:
    """Of the t interval of the mean of S values; 0 for too few."""
    degrees = len(values) - 1
    if len(values) < FEWEST:
        return 0.0
    student = STUDENT[degrees - 1] if degrees <= len(STUDENT) else 1.96 + 2.5 / degrees
    return float(student * values.std(ddof=1) / np.sqrt(len(values)))


def put_together(value: float, resampled: np.ndarray, seeds: float) -> Estimate:
    low, high = np.nanquantile(resampled, [0.025, 0.975])
    return Estimate(value, float(value - np.hypot(value - low, seeds)), float(value + np.hypot(high - value, seeds)))


def estimate(runs: Sequence[Measured], measure: str) -> Estimate | None:
    """A measure of one setting over its runs, None where it wasn't measured; its interval holds only what the measure can be."""
    both = parts(runs, measure)
    if both is None or not both[1].sum(1).all():
        return None
    found = put_together(float(both[0].sum() / both[1].sum()), of_prompts(both), half_width(of_seeds(both)))
    low = found.low if measure in NEGATIVE else max(found.low, 0.0)
    return Estimate(found.value, low, min(found.high, 1.0) if measure in SHARES else found.high)


def difference(runs: Sequence[Measured], others: Sequence[Measured], measure: str, paired: bool = True) -> Estimate | None:
    """A measure of one setting minus that of another, on the same prompts.

    Args:
        paired: whether run k of both has the same seed; else the widths of both are added as squares.

    Raises:
        ValueError: where the two were evaluated on different prompts.
    """
    ours, theirs = parts(runs, measure), parts(others, measure)
    if ours is None or theirs is None or not ours[1].sum(1).all() or not theirs[1].sum(1).all():
        return None
    if ours.shape[2] != theirs.shape[2]:
        raise ValueError("evaluated on different prompts")
    if paired:
        seeds = half_width(of_seeds(ours) - of_seeds(theirs))
    else:
        seeds = float(np.hypot(half_width(of_seeds(ours)), half_width(of_seeds(theirs))))
    value = float(ours[0].sum() / ours[1].sum() - theirs[0].sum() / theirs[1].sum())
    return put_together(value, of_prompts(ours) - of_prompts(theirs), seeds)  # the same prompts are drawn for both
