"""Draws the figure of model_search: ``python experiments/search.py`` writes its by-size.svg from what is kept of the runs."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
from kept import EXPERIMENTS, Kept

from deproj.measure.compare import estimate
from deproj.process.errors import run_command
from deproj.runs.folder import RunFolder
from deproj.runs.records import KINDS
from deproj.settings.build import build

#: Models by their names here, and the runs of each on states and through the U-Net; those that aren't measured are left out.
MODELS = {
    "one state": ("model_search/small-one-state-states-*", "model_search/small-one-state-conditioning-*"),
    "LSTM": ("model_search/lstm-states-*", "model_search/lstm-conditioning-*"),
    "small": ("past_the_article/states-all-*", "past_the_article/conditioning-all-*"),
    "transformer": ("model_search/transformer-states-*", "model_search/transformer-conditioning-*"),
    "wide LSTM": ("model_search/lstm-wide-states-*", "model_search/lstm-wide-conditioning-*"),
    "MLP": ("model_search/mlp-states-*", "model_search/mlp-conditioning-*"),
    "large": ("past_the_article/large-*", "model_search/large-conditioning-*"),
}
COLOURS = {"on states": "#b5651d", "through the U-Net": "#1b6ca8"}


def runs(pattern: str) -> list[Path]:
    """Those that were measured."""
    experiment, name = pattern.split("/")
    return sorted(path.parent for path in (EXPERIMENTS / experiment / "runs").glob(f"{name}/evaluation.json"))


def parameters(run: Path) -> int:
    """Of a run's model, by its settings."""
    from deproj.clip.encoder import TextEncoder

    model = build(RunFolder(run).read_config()["model"], partial, "model")(TextEncoder.from_pretrained("pixel", "pixel"))
    return sum(parameter.numel() for parameter in model.parameters())


def figure(path: Path) -> None:
    """Conditioning error of each model, the smallest first, a panel a kind of prompts."""
    drawn, panels = plt.subplots(1, 2, figsize=(13, 4), sharey=True, layout="constrained")
    sizes = {name: parameters(found[0]) for name, both in MODELS.items() if (found := [*runs(both[0]), *runs(both[1])])}
    names = sorted(sizes, key=lambda name: sizes[name])
    for axes, kind in zip(panels, KINDS, strict=True):
        for place, (label, colour) in enumerate(COLOURS.items()):
            there = {number: MODELS[name][place] for number, name in enumerate(names) if runs(MODELS[name][place])}
            found = {n: estimate(Kept(names[n], pattern).measured(kind), "conditioning_error") for n, pattern in there.items()}
            measured = {n + 0.12 * (2 * place - 1): one for n, one in found.items() if one is not None}
            y = [one.value for one in measured.values()]
            bars = [[one.value - one.low for one in measured.values()], [one.high - one.value for one in measured.values()]]
            axes.errorbar(list(measured), y, bars, color=colour, fmt="o", capsize=3, label=label)
        axes.set_title(f"{kind} prompts")
        axes.set_xticks(range(len(names)), [f"{name}\n{sizes[name] / 1e6:.2g} M" for name in names])
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set(ylabel="conditioning error", ylim=(0, None))  # of both, when all is drawn
    drawn.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    plt.rcParams["svg.hashsalt"] = "deproj"
    drawn.savefig(path, metadata={"Date": None})


def main() -> int:
    return run_command(lambda: figure(EXPERIMENTS / "model_search" / "by-size.svg"))


if __name__ == "__main__":
    sys.exit(main())
