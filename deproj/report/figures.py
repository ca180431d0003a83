"""The figures of a report, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from deproj.measure.results import Setting
from deproj.measure.rows import Row
from deproj.runs.records import KINDS, told

__all__ = ["Drawn", "by_place", "curves", "scatter"]

COLOURS = ("#3366aa", "#dd7733", "#339966", "#aa3377", "#777777", "#997700", "#66ccee", "#222222", "#cc3311", "#009988")
#: Of trained settings and of baselines; the next one when the colours have all been used.
MARKERS = ("o^v", "sDP")
#: Of lines, likewise.
DASHES = (("-", "-."), ("--", ":"))


@dataclass(frozen=True)
class Drawn:
    """A figure as SVG.

    Attributes:
        whole: with its legend above it, to stand alone.
        panels: without it.
        key: the legend's entries, each a label and its sign as SVG, for a page that sets them as text.
    """

    whole: str
    panels: str
    key: list[tuple[str, str]]


def colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def turn(signs: Sequence[str], number: int) -> str:
    """The sign that distinguishes a setting from those of the same colour."""
    return signs[number // len(COLOURS) % len(signs)]


def svg(figure: Any, margin: float = 0.1, transparent: bool = False) -> str:
    """A figure as inline SVG that scales with the page, with a margin in inches, the same bytes every time."""
    stream = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "deproj", "svg.fonttype": "none"}):
        figure.savefig(
            stream, format="svg", bbox_inches="tight", pad_inches=margin, transparent=transparent, metadata={"Date": None}
        )
    text = stream.getvalue()
    return text[text.index("<svg") :]


def plain_decimals(axis: Any) -> None:
    """Ticks of a logarithmic axis as 0.02 and not as powers, between powers of ten where hardly any are on it."""
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    low, high = axis.get_ylim()
    powers = np.floor(np.log10(high)) - np.ceil(np.log10(low)) + 1
    shown = "" if powers > 2 else "235" if high / low >= 3 else "123456789"
    axis.yaxis.set_minor_formatter(FuncFormatter(lambda value, place: f"{value:g}" if f"{value:e}"[0] in shown else ""))
    axis.tick_params(axis="y", which="minor", labelsize=8)
    axis.tick_params(axis="y", which="major", labelsize=8)


def sign(handle: Any) -> str:
    """A legend's sign without its label."""
    figure = Figure(figsize=(0.4, 0.2))
    figure.legend([handle], [""], handlelength=3, loc="center", frameon=False, borderpad=0, borderaxespad=0, handletextpad=0)
    return svg(figure, 0.02)


def drawn(figure: Figure, found: Sequence[Setting]) -> Drawn:
    """With one legend for all panels, in the order of the settings."""
    named = {label: h for axis in figure.axes for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    handles = {setting.label: named[setting.label] for setting in found if setting.label in named}
    panels, key = svg(figure, transparent=True), [(label, sign(handle)) for label, handle in handles.items()]
    longest = max(map(len, handles), default=0)
    columns = max(1, min(3, int(figure.get_figwidth() / (0.5 + 0.06 * longest))))
    place = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0), "ncols": columns}
    figure.legend(handles.values(), handles.keys(), fontsize=8, frameon=False, **place)
    return Drawn(svg(figure), panels, key)


def scatter(found: list[Setting], rows: list[Row]) -> Drawn | None:
    """Fidelity against noise, a point a setting, its bars the intervals."""
    measure = "fidelity" if "fidelity" in rows[0].values else "clip_score"
    measured = {(row.setting, row.prompts): row.values for row in rows}
    figure = Figure(figsize=(9, 4))
    points = 0
    for axis, kind in zip(figure.subplots(1, 2, sharex=True, sharey=True), KINDS, strict=True):
        for number, setting in enumerate(found):
            values = measured.get((setting.label, kind), {})
            x, y = values.get("noise"), values.get(measure)
            if x is None or y is None:
                continue
            bars = [[[e.value - e.low], [e.high - e.value]] for e in (x, y)]
            style = {"fmt": turn(MARKERS[setting.baseline], number), "color": colour(number), "ms": 6, "lw": 1}
            axis.errorbar(x.value, y.value, xerr=bars[0], yerr=bars[1], label=setting.label, **style)
            points += 1
        axis.set_title(f"{kind} prompts", fontsize=10)
        axis.set_xlabel("noise (1: as the true states' pictures)")
        axis.set_ylabel(told(measure))
        axis.grid(alpha=0.3)
    if not points:
        return None
    return drawn(figure, found)


def by_place(found: list[Setting]) -> Drawn:
    """Error by place, a line a setting, the mean over its runs."""
    figure = Figure(figsize=(9, 3.6))
    for axis, kind in zip(figure.subplots(1, 2, sharey=True), KINDS, strict=True):
        for number, setting in enumerate(found):
            if kind not in setting.kinds:
                continue
            mean = np.mean([np.array(measured.by_place, float) for measured in setting.measured(kind)], 0)
            line = {"color": colour(number), "lw": 1.3, "ls": turn(DASHES[setting.baseline], number)}
            axis.plot(range(1, 77), mean[1:], label=setting.label, **line)
        axis.set_title(f"{kind} prompts", fontsize=10)
        axis.set_xlabel("place, in the order that the model learns")
        axis.set_ylabel("mean squared error of the state")
        axis.set_yscale("log")
        plain_decimals(axis)
        axis.grid(alpha=0.3)
    return drawn(figure, found)


def curves(found: list[Setting]) -> Drawn | None:
    """Held-out free-running loss by epoch, a panel a selection and objective: losses of different ones cannot be compared."""
    panels: dict[str, list[tuple[int, Setting]]] = {}
    for number, setting in enumerate(found):
        if setting.trained_here and setting.kinds == KINDS:  # else the same runs, measured in another way
            choices = setting.first.config["choices"]
            objective = choices.get("objective", "states")
            name = choices["selection"] if objective == "states" else f"{choices['selection']}, {objective}"
            panels.setdefault(name, []).append((number, setting))
    if not panels:
        return None
    columns = min(len(panels), 4)
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(min(3 * columns + 0.5, 12), 3 * lines))
    for place, (name, members) in enumerate(sorted(panels.items(), key=lambda panel: "," in panel[0]), 1):
        axis = figure.add_subplot(lines, columns, place)
        for number, setting in members:
            for k, result in enumerate(setting.results):
                label = setting.label if k == 0 else None
                mark = "o" if len(result.curve) == 1 else None  # a line of one point is not seen
                line: dict[str, Any] = {"color": colour(number), "lw": 1, "ls": turn(DASHES[0], number), "marker": mark, "ms": 4}
                axis.plot(*zip(*result.curve, strict=True), label=label, **line)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set_yscale("log")
        plain_decimals(axis)
        axis.grid(alpha=0.3)
    for axis in figure.axes[::columns]:
        axis.set_ylabel("held-out free-running loss")
    figure.tight_layout()
    return drawn(figure, found)
