"""Settings over several training seeds: means, intervals and paired differences, from ``evaluation.json`` files.

A setting has S runs that differ in their seed alone. As in `deproj.metrics`, a number is Σ a / Σ b, here over seeds and
prompts; its interval is a bootstrap over both (seeds drawn with replacement, and prompts, the same ones for all seeds). With
one seed only prompts are drawn: the interval then says nothing about training again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["MEASURES", "Estimate", "difference", "estimate"]

#: The measures of the tables, and whether more is better.
MEASURES = {
    "fidelity": True,
    "clip score": True,
    "conditioning error": False,
    "noise": False,
    "likeness": True,
    "mse words": False,
    "mse eos": False,
    "mse padding": False,
}
RESAMPLES = 2000


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}, {self.high:.3f})"


def parts(evaluations: list[dict[str, Any]], kind: str, measure: str) -> np.ndarray | None:
    """a and b of each run and prompt, (2, S, N), or None where a run lacks the measure."""
    raw = [evaluation["raw"][kind].get(measure) for evaluation in evaluations]
    if any(r is None for r in raw) or not raw:
        return None
    return np.array(raw, float).transpose(1, 0, 2)


def draws(seeds: int, prompts: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """How often each seed and each prompt is drawn in each resample, (R, S) and (R, N)."""
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES)
    return of_seeds, random.multinomial(prompts, np.full(prompts, 1 / prompts), RESAMPLES)


def ratios(both: np.ndarray, of_seeds: np.ndarray, of_prompts: np.ndarray) -> np.ndarray:
    """Σ a / Σ b of every resample, (R,)."""
    above, below = (np.einsum("rs,sn,rn->r", of_seeds, each, of_prompts, optimize=True) for each in both)
    return above / below


def interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def estimate(evaluations: list[dict[str, Any]], kind: str, measure: str) -> Estimate | None:
    """A measure of one setting over its runs; None where it wasn't measured."""
    both = parts(evaluations, kind, measure)
    if both is None or both[1].sum() == 0:
        return None
    drawn = draws(both.shape[1], both.shape[2], np.random.default_rng(0))
    return Estimate(float(both[0].sum() / both[1].sum()), *interval(ratios(both, *drawn)))


def difference(evaluations: list[dict[str, Any]], others: list[dict[str, Any]], kind: str, measure: str) -> Estimate | None:
    """A measure of one setting minus that of another, on the same prompts.

    Where both have as many runs they are paired by their order (the same seeds); else each one's seeds are drawn apart.

    Raises:
        ValueError: where the two were evaluated on different prompts.
    """
    ours, theirs = parts(evaluations, kind, measure), parts(others, kind, measure)
    if ours is None or theirs is None or ours[1].sum() == 0 or theirs[1].sum() == 0:
        return None
    if ours.shape[2] != theirs.shape[2]:
        raise ValueError("evaluated on different prompts")
    random = np.random.default_rng(0)
    of_seeds, of_prompts = draws(ours.shape[1], ours.shape[2], random)
    other_seeds = of_seeds if ours.shape[1] == theirs.shape[1] else draws(theirs.shape[1], ours.shape[2], random)[0]
    value = float(ours[0].sum() / ours[1].sum() - theirs[0].sum() / theirs[1].sum())
    return Estimate(value, *interval(ratios(ours, of_seeds, of_prompts) - ratios(theirs, other_seeds, of_prompts)))
