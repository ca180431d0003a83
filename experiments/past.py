"""Draws the pictures of past_the_article: ``python experiments/past.py`` writes its sheet.png and by-steps.svg.

The sheet needs the models of the runs, in ``sweeps/``; the curve what ``experiments/*/runs`` keeps of them.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import matplotlib.pyplot as plt
from kept import EXPERIMENTS, Kept
from ship import World

from deproj.draw.sheets import TRUE_STATES, save_image, sheet
from deproj.measure.compare import estimate
from deproj.model.base import Deprojector
from deproj.process.errors import run_command
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.texts.benchmark import PROMPTS

HERE = EXPERIMENTS / "past_the_article"
SWEEP = "sweeps/past_the_article"
#: The rows of the sheet, and the models that draw them.
ROWS = {
    "the article's LSTM": "eos_onward-recursive",
    "small, on states": f"{SWEEP}/states-all-0",
    "small, 418 steps through the U-Net": f"{SWEEP}/conditioning-all-0",
    "small, 3,338 steps": "small",
    "best, 10,812 steps": "best",
}
#: The runs of the curve.
POINTS = ("past_the_article/states-all-*", "past_the_article/conditioning-all-*", "best/small-*", "best/best-*")


def steps_through_unet(run: RunFolder) -> int:
    """Steps of a run's training that went through the U-Net."""
    config = run.read_config()
    if config["choices"]["objective"] == "states":
        return 0
    each = math.ceil(config["data"]["size"] / config["data"]["batch_size"])
    return int(run.read_result().epochs * each - config["objective"]["states_first"])


def curve(path: Path) -> None:
    """Conditioning error against steps through the U-Net."""
    figure, axes = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for kind, colour in (("single", "#1b6ca8"), ("composed", "#b5651d")):
        found = []
        for runs in POINTS:
            kept = Kept(runs, runs)
            measured = estimate(kept.measured(kind), "conditioning_error")
            assert measured is not None
            experiment, name = runs.split("/")
            run = RunFolder(next(iter(sorted((EXPERIMENTS / experiment / "runs").glob(name)))))
            found.append((steps_through_unet(run), measured))
        x = [steps for steps, _ in found]
        y = [one.value for _, one in found]
        bars = [[one.value - one.low for _, one in found], [one.high - one.value for _, one in found]]
        axes.errorbar(x, y, bars, color=colour, marker="o", capsize=3, label=f"{kind} prompts")
    names = ("on states", "small, short", "small", "best")
    for (steps, one), name in zip(found, names, strict=True):
        axes.annotate(f"{name}\n{steps:,}", (steps, one.high), (0, 6), textcoords="offset points", ha="center", fontsize=9)
    axes.set(xlabel="steps through the U-Net", ylabel="conditioning error", ylim=(0, None))
    axes.set_xscale("symlog", linthresh=400)
    axes.set_xticks(x, [f"{steps:,}" for steps in x])
    axes.minorticks_off()
    axes.margins(x=0.08, y=0.2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    plt.rcParams["svg.hashsalt"] = "deproj"
    figure.savefig(path, metadata={"Date": None})


def rows(path: Path) -> None:
    """The benchmark prompts, from each model."""
    world = World.of("pixel")
    drawn = {name: world.pictures(Deprojector.from_pretrained(model, world.encoder)) for name, model in ROWS.items()}
    save_image(sheet({TRUE_STATES: world.reference} | drawn, PROMPTS), path)


def main() -> int:
    def command() -> None:
        quiet_libraries()
        curve(HERE / "by-steps.svg")
        rows(HERE / "sheet.png")
        print("Wrote by-steps.svg and sheet.png.")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
