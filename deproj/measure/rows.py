"""The rows of a comparison: for each setting and kind of prompts its numbers, and which are the best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from deproj.measure.compare import Estimate, difference, estimate
from deproj.measure.results import Setting
from deproj.runs.records import KINDS, MEASURES

__all__ = ["Row", "difference_between", "rows_of", "shown_measures"]


@dataclass(frozen=True)
class Row:
    """One setting on one kind of prompts.

    Attributes:
        setting: its label.
        prompts: single or composed.
        seeds: runs that it is of.
        baseline, trained_here: as of the setting.
        values: by measure.
        differences: to the setting that all are compared to; None where a measure can't be.
        untrained: measures of regions that the selection doesn't train.
        best: measures of which it is the best, told apart from every other setting.
    """

    setting: str
    prompts: str
    seeds: int
    baseline: bool
    trained_here: bool
    values: dict[str, Estimate]
    differences: dict[str, Estimate | None]
    untrained: tuple[str, ...]
    best: tuple[str, ...] = ()

    @classmethod
    def of(cls, setting: Setting, against: Setting, kind: str) -> Row:
        ours = setting.measured(kind)
        values = {measure: made for measure in MEASURES if (made := estimate(ours, measure)) is not None}
        trained = setting.first.evaluation.trained
        return cls(
            setting.label,
            kind,
            len(setting.results),
            setting.baseline,
            setting.trained_here,
            values,
            {measure: difference_between(setting, against, kind, measure) for measure in values},
            tuple(measure for measure in values if measure.startswith("mse_") and not trained[measure[4:]]),
        )


def difference_between(setting: Setting, against: Setting, kind: str, measure: str) -> Estimate | None:
    """A measure of one setting minus that of another, paired by seed where both have the same; None where one lacks it."""
    paired = [result.seed for result in setting.results] == [result.seed for result in against.results]
    return difference(setting.measured(kind), against.measured(kind), measure, paired)


def rows_of(found: Sequence[Setting], against: Setting) -> list[Row]:
    """The rows of settings, single prompts first, each compared to `against`."""
    rows: list[Row] = []
    for kind in KINDS:
        there = [setting for setting in found if kind in setting.kinds]
        rows += with_best([Row.of(setting, against, kind) for setting in there], there, kind)
    return rows


def with_best(rows: list[Row], settings: list[Setting], kind: str) -> list[Row]:
    """The rows of one kind of prompts, the best of each measure marked."""
    best: dict[int, list[str]] = {}
    for measure, more in MEASURES.items():
        having = [number for number, row in enumerate(rows) if measure in row.values]
        if len(having) < 2 or more is None:
            continue
        sign = -1 if more else 1
        first, *others = sorted(having, key=lambda n: sign * rows[n].values[measure].value)
        differences = (difference_between(settings[first], settings[n], kind, measure) for n in others)
        if all(by is not None and not by.low <= 0 <= by.high for by in differences):
            best.setdefault(first, []).append(measure)
    return [replace(row, best=tuple(best.get(number, ()))) for number, row in enumerate(rows)]


def shown_measures(rows: Sequence[Row]) -> list[str]:
    """Measures that any row has, in the order of tables."""
    return [measure for measure in MEASURES if any(measure in row.values for row in rows)]
