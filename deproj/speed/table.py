"""Timings as rows and as text."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from deproj.speed.cases import Case


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        seconds: median of one unit; `spread`: (largest - smallest) / median over the rounds.
        ratio: median over the rounds of the plain float32 loop's time over this one's, `ratio_range` its range.
        share: of the machine's matrix-product rate in the same precision.
        fastest: of those that train the same model on the same places, in whatever precision.
    """

    name: str
    unit: str
    seconds: float
    per_second: float
    spread: float
    ratio: float | None
    ratio_range: tuple[float, float] | None
    share: float
    fastest: bool = False


def rows_of(found: list[Case]) -> list[Row]:
    by_name = {case.name: case for case in found}
    precisions = {case.precision for case in found}
    rates = {p: 2 * 2048.0**3 / statistics.median(by_name[f"product 2048³ | {p}"].seconds) for p in precisions}
    groups: dict[str, list[Case]] = {}
    for case in found:
        if case.group is not None:
            groups.setdefault(case.group, []).append(case)
    fastest = {min(group, key=lambda case: statistics.median(case.seconds)).name for group in groups.values()}
    rows = []
    for case in found:
        median = statistics.median(case.seconds)
        spread = (max(case.seconds) - min(case.seconds)) / median
        ratio = bounds = None
        if case.against:
            ratios = [a / b for a, b in zip(by_name[case.against].seconds, case.seconds, strict=True)]
            ratio, bounds = statistics.median(ratios), (min(ratios), max(ratios))
        share = case.flops / median / rates[case.precision]
        rows.append(Row(case.name, case.unit, median, 1 / median, spread, ratio, bounds, share, case.name in fastest))
    return rows


def as_text(rows: list[Row]) -> str:
    lines = [["case", "median", "rate", "spread", "× plain loop in float32", "share of 2048³"]]
    for row in rows:
        ratio = ""
        if row.ratio is not None and row.ratio_range is not None:
            low, high = row.ratio_range
            noise = " noise" if low <= 1 <= high else ""
            ratio = f"{row.ratio:.2f} ({low:.2f} to {high:.2f}){noise}"
        ratio += " fastest" * row.fastest
        rate = f"{row.per_second:.3g} {row.unit}s/s"
        lines.append([row.name, f"{row.seconds * 1e3:.4g} ms", rate, f"{row.spread:.0%}", ratio, f"{row.share:.0%}"])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    texts = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])
