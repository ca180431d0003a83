"""The tables of a report as Markdown and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from deproj.measure.compare import Estimate
from deproj.measure.results import LeftOut
from deproj.measure.rows import Row, shown_measures
from deproj.runs.records import KINDS, told

__all__ = ["as_json", "markdown"]


def markdown(rows: list[Row], left_out: list[LeftOut], against: str, command: str, said: list[str]) -> str:
    """The verdict and the tables as Markdown."""
    measures = shown_measures(rows)
    short = [measure for measure in measures if not measure.startswith("mse_")]
    lines = [f"`{command}`", "", *(f"- {one}" for one in said), ""]
    for kind in KINDS:
        of_kind = [row for row in rows if row.prompts == kind]
        lines += [f"## {kind.capitalize()} prompts", "", *header(["setting", "seeds", *map(told, measures)])]
        for row in of_kind:
            count = str(row.seeds) if row.trained_here else ""
            lines.append(line([row.setting, count, *(value(row, measure) for measure in measures)]))
        lines.append("")
        others = [row for row in of_kind if row.setting != against]
        if others:
            lines += [f"### Differences to {against}", "", *header(["setting", *map(told, short)])]
            lines += [line([row.setting, *(shown(row.differences.get(measure)) for measure in short)]) for row in others]
            lines.append("")
    if left_out:
        lines += ["## Not in the tables", "", *(f"- {folder.as_posix()}: {reason}" for folder, reason in left_out)]
    return "\n".join(lines) + "\n"


def value(row: Row, measure: str) -> str:
    """A measure of a row; the best in bold, a region that isn't trained with a star."""
    if measure not in row.values:
        return "–"
    text = str(row.values[measure]) + "*" * (measure in row.untrained)
    return f"**{text}**" if measure in row.best else text


def shown(estimate: Estimate | None) -> str:
    return "–" if estimate is None else estimate.signed


def header(cells: Sequence[str]) -> list[str]:
    return [line(cells), "|" + "---|" * len(cells)]


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def as_json(rows: list[Row], left_out: list[LeftOut], against: str, command: str, said: list[str]) -> str:
    """The verdict and the rows as JSON."""
    content = {"command": command, "against": against, "verdict": said, "rows": [asdict(row) for row in rows]}
    return json.dumps(content | {"left_out": [[f.as_posix(), reason] for f, reason in left_out]}, indent=2) + "\n"
