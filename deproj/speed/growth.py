"""How seconds and memory grow with what is asked for, each point in a process of its own."""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import log
from pathlib import Path
from typing import Any

import torch

from deproj.process import system
from deproj.process.progress import Progress

__all__ = ["CURVES", "Curve", "Point", "as_json", "figure", "measured", "text"]

#: Repetitions of which the median is taken, as long as all take no more than so many seconds.
TIMES, LONGEST = 5, 5.0
#: An exponent so far above that of the work is told.
SLACK = 0.15


@dataclass(frozen=True)
class Point:
    """A size with the median seconds of one time, and the peak memory of its process in MiB, None where it isn't told."""

    size: int
    seconds: float
    memory: float | None


@dataclass(frozen=True)
class Curve:
    """What grows with what.

    Attributes:
        make: gets a size and an empty folder, and returns what is timed.
        work: the exponent with which the work itself grows.
    """

    name: str
    of: str
    sizes: tuple[int, ...]
    make: Callable[[int, Path], Callable[[], Any]]
    work: float = 1.0
    points: tuple[Point, ...] = ()

    @property
    def exponent(self) -> float:
        """Of the seconds, between the last two sizes: smaller ones cost what every call costs."""
        one, other = self.points[-2:]
        return log(other.seconds / one.seconds) / log(other.size / one.size)

    @property
    def faster_than_its_work(self) -> bool:
        return self.exponent > self.work + SLACK


def step(width: int, batch: int, places: int) -> Callable[[], Any]:
    """A training step of the LSTM, fed its own output."""
    from deproj.model.lstm import LSTMConfig, LSTMDeprojector

    torch.manual_seed(0)
    model = LSTMDeprojector(LSTMConfig(width, width * 3 // 2))
    embedding, target = torch.randn(batch, width), torch.randn(batch, places, width)

    def run() -> None:
        model.zero_grad()
        (model.unroll(embedding, places) - target).square().mean().backward()

    return run


def of_batch(size: int, _: Path) -> Callable[[], Any]:
    return step(128, size, 76)


def of_width(size: int, _: Path) -> Callable[[], Any]:
    return step(size, 50, 20)


def of_places(size: int, _: Path) -> Callable[[], Any]:
    return step(128, 100, size)


def of_embeddings(size: int, _: Path) -> Callable[[], Any]:
    from deproj.model.lstm import LSTMConfig, LSTMDeprojector

    model, embedding = LSTMDeprojector(LSTMConfig(128, 192)).eval(), torch.randn(size, 128)

    def run() -> None:
        with torch.no_grad():
            model.unroll(embedding, 76)

    return run


def of_captions(size: int, folder: Path) -> Callable[[], Any]:
    """Reading a file of captions, a line each."""
    from deproj.data.captions.open import read_captions

    path = folder / "captions.txt"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"a picture of the number {number}, in green\n" for number in range(size))

    def run() -> None:
        assert sum(1 for _ in read_captions(str(path)).texts()) == size

    return run


def of_samples(size: int, folder: Path) -> Callable[[], Any]:
    """Drawing samples of the pixel world's texts, and encoding them into a cache of training."""
    from deproj.data.cache import build_cache
    from deproj.data.mix import Mix
    from deproj.data.sources import GrammarPrompts
    from deproj.draw.stable_diffusion import StableDiffusion

    encoder, mix = StableDiffusion.named("pixel").encoder("cpu"), Mix(0.4, 0.2)

    def run() -> None:
        samples = mix.samples(GrammarPrompts(), size, 0)
        shutil.rmtree(build_cache(folder, {"mix": mix.key}, samples, size, encoder, "samples").folder)

    return run


def of_models(size: int, folder: Path) -> Callable[[], Any]:
    """An evaluation of so many untrained models, on six prompts; what is the same for all is computed in the first one."""
    from deproj.data.sources import GrammarPrompts
    from deproj.draw.stable_diffusion import StableDiffusion
    from deproj.measure.evaluator import Evaluator, evaluation_prompts
    from deproj.model.lstm import LSTMDeprojector
    from deproj.selection import EosOnward

    sd = StableDiffusion.named("pixel")
    encoder = sd.encoder("cpu")
    prompts = evaluation_prompts(GrammarPrompts(), 6, 0)
    evaluator = Evaluator(encoder, sd.renderer(encoder, "cpu"), prompts, None, folder)
    models = [LSTMDeprojector.for_encoder(encoder) for _ in range(size)]

    def run() -> None:
        for model in models:
            evaluator(model, EosOnward())

    return run


def of_runs(size: int, folder: Path) -> Callable[[], Any]:
    """Reading so many runs of three seeds, comparing them and writing the page, without pictures."""
    import numpy as np

    from deproj.measure.evaluator import measured as stored
    from deproj.measure.metrics import Measure
    from deproj.measure.results import collect
    from deproj.measure.rows import rows_of
    from deproj.report.figures import by_place, scatter
    from deproj.report.tables import as_json as table_as_json
    from deproj.runs.folder import RunFolder
    from deproj.runs.records import Evaluation, RunResult
    from deproj.settings.compose import compose_config

    config, rng = compose_config([]), np.random.default_rng(0)
    names = [f"prompt {number}" for number in range(200)]
    for number in range(size):
        own = config | {"seed": number % 3, "optimizer": config["optimizer"] | {"learning_rate": 1e-3 + 1e-6 * (number // 3)}}
        kinds = [
            stored({name: Measure.mean(rng.random(200)) for name in ("fidelity", "noise", "likeness")}, torch.rand(77))
            for _ in range(2)
        ]
        run = RunFolder(folder / str(number))
        run.begin(own)
        trained = dict.fromkeys(("words", "eos", "padding"), True)
        run.write(run.evaluation(), Evaluation(1, "growth", 0, names, trained, *kinds))
        run.metrics.write_text("epoch,step,val/loss\n1,100,0.1\n", encoding="utf-8")
        run.write(run.result, RunResult(0.1, 5, False, 1.0, {}, {}))

    def read() -> None:
        found, _ = collect([folder])
        rows = rows_of(found, found[0])
        scatter(found, rows)
        by_place(found)
        table_as_json(rows, [], "", "", [])

    return read


CURVES = (
    Curve("a training step", "batch", (1, 10, 100, 1000), of_batch),
    Curve("a training step of 50", "width", (128, 256, 512, 1024, 1536), of_width, work=2.0),
    Curve("a training step of 100", "places", (5, 10, 20, 38, 76), of_places),
    Curve("generation", "embeddings", (1, 10, 100, 1000), of_embeddings),
    Curve("reading captions", "captions", (1_000, 10_000, 100_000, 1_000_000), of_captions),
    Curve("encoding", "samples", (100, 1_000, 10_000), of_samples),
    Curve("an evaluation", "models", (1, 2, 4), of_models),
    Curve("a report", "runs", (10, 30, 100, 300), of_runs),
)


def point(number: int, size: int) -> Point:
    """One point of a curve, in the process that calls it."""
    with tempfile.TemporaryDirectory() as folder:
        run, seconds = CURVES[number].make(size, Path(folder)), list[float]()
        while len(seconds) < TIMES and sum(seconds) < LONGEST:
            began = time.perf_counter()
            run()
            seconds.append(time.perf_counter() - began)
    # the first time also compiles kernels and fills caches
    return Point(size, statistics.median(seconds[1:] or seconds), system.peak_memory())


def measured(progress: Progress, curves: tuple[Curve, ...] = CURVES) -> list[Curve]:
    """Curves with their points."""
    found = []
    with progress.phase("measuring growth", sum(len(curve.sizes) for curve in curves)) as phase:
        for curve in curves:
            points = []
            for size in curve.sizes:
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    points.append(pool.apply(point, (CURVES.index(curve), size)))
                phase.advance()
            found.append(replace(curve, points=tuple(points)))
    return found


def text(curves: list[Curve]) -> str:
    """A line a curve: seconds and memory by size, and both exponents."""
    lines = []
    for curve in curves:
        lines.append(
            f"{curve.name}, by {curve.of}: seconds grow as the {curve.exponent:.2f}th power, the work as the {curve.work:g}th"
        )
        lines[-1] += " FASTER THAN THE WORK" * curve.faster_than_its_work
        for at in curve.points:
            memory = "" if at.memory is None else f", {at.memory:,.0f} MiB at most"
            lines.append(f"  {at.size:>9,}  {at.seconds * 1e3:>10,.1f} ms{memory}")
    return "\n".join(lines)


def as_json(curves: list[Curve]) -> list[dict[str, Any]]:
    return [
        {"name": c.name, "of": c.of, "work": c.work, "exponent": c.exponent, "points": [asdict(at) for at in c.points]}
        for c in curves
    ]


def figure(curves: list[Curve], path: Path) -> None:
    """Seconds and memory on logarithmic axes, a panel for what grows, with the slope of the work dotted, as SVG."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    told = FuncFormatter(lambda value, _: f"{value:,g}")
    columns = 4
    drawn = Figure(figsize=(13, 3.1 * -(-len(curves) // columns)), layout="constrained")
    for number, curve in enumerate(curves):
        axis = drawn.add_subplot(-(-len(curves) // columns), columns, number + 1)
        sizes, seconds = [at.size for at in curve.points], [at.seconds for at in curve.points]
        axis.loglog(sizes, seconds, "o-", color="#3366aa", label="seconds")
        axis.loglog(
            sizes, [seconds[-1] * (size / sizes[-1]) ** curve.work for size in sizes], ":", color="#777777", label="the work"
        )
        axis.set_title(f"{curve.name}: exponent {curve.exponent:.2f}", fontsize=10)
        axis.set_xlabel(curve.of, fontsize=9)
        axis.yaxis.set_minor_formatter(NullFormatter())
        axis.yaxis.set_major_locator(LogLocator(numticks=4))
        axis.yaxis.set_major_formatter(told)
        other = axis.twinx()
        other.set_visible(all(at.memory is not None for at in curve.points))
        if other.get_visible():
            other.loglog(sizes, [at.memory for at in curve.points], "s--", color="#dd7733", markersize=4, label="MiB at most")
            other.set_ylim(100, 20_000)
            other.yaxis.set_major_formatter(told)
        for one in (axis, other):
            one.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
            one.xaxis.set_minor_locator(NullLocator())
        if number == 0:
            handles = [line for one in drawn.axes for line in one.get_lines()]
            drawn.legend(handles=handles, loc="outside lower right", ncols=3, fontsize=9, frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "deproj", "svg.fonttype": "none"}):
        drawn.savefig(path, metadata={"Date": None})
