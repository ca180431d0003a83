"""Part 2: it is fast. Training and generation at Stable Diffusion's size, beside what else could be done on the card.

A row is a case of one size, feed, precision and selection; its columns are what computes it: the plain loop of cells under
autograd, the same with one place compiled by torch.compile, cuDNN's nn.LSTM of the same width (another function: without the
layer norms, and fed only), ours, and ours replayed as CUDA graphs. Where ours isn't the fastest, a profile is saved.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from common import CARD, OUT, SHORTEST, Part, pick
from torch import Tensor, nn

from deproj.data.cache import Rows
from deproj.feed import Batch, FeedMode, Recursive
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.selection import EosOnward, TokenSelection, WordsEos
from deproj.speed.peers import PlainLoop
from deproj.training.graphs import GraphedFeed
from deproj.training.module import DeprojectorModule
from deproj.training.objective.base import Learner, States

DEVICE = "cuda" if CARD else "cpu"
WIDTH = pick(768, 64, 16)
BATCHES = pick((100, 1000), (10, 20), (4,))
COUNTS = pick((1, 100, 1000), (1, 4), (2,))
SECONDS = pick(0.5, 0.05, 0.01)
PLACES = 77
LENGTHS = pick((5, 26), (3, 5), (3, 5))  # of captions
FEEDS: dict[str, FeedMode] = {"recursive": Recursive(), "batch": Batch()}
PRECISIONS = ("fp32", "tf32", "bf16") if CARD else ("fp32", "bf16")
OURS = ("ours", "graphs")


@dataclass(frozen=True)
class Row:
    """What is computed.

    Attributes:
        words: whether only words are trained (`words_eos`), else all 76 places (`eos_onward`).
    """

    batch: int
    feed: str
    precision: str
    words: bool = False

    @property
    def name(self) -> str:
        return f"{self.batch} | {self.feed} | {self.precision} | {'words_eos' if self.words else 'eos_onward'}"

    @property
    def selection(self) -> TokenSelection:
        return WordsEos() if self.words else EosOnward()


class CompiledPlace(PlainLoop):
    """The plain loop with one place compiled; a whole loop takes minutes to compile (part whole_loop)."""

    kind = "lstm_compiled_place"

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.step = torch.compile(self.step, dynamic=False)  # type: ignore[method-assign]


class CompiledLoop(PlainLoop):
    """The plain loop compiled as a whole."""

    kind = "lstm_compiled_loop"

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.unroll = torch.compile(self.unroll, dynamic=False)  # type: ignore[method-assign]


LOOPS: dict[str, type[LSTMDeprojector]] = {
    "plain loop": PlainLoop,
    "compiled place": CompiledPlace,
    "compiled loop": CompiledLoop,
}


class CuDnn(nn.Module):
    """cuDNN's LSTM of the same width with a linear output, fed; its gradients are taken of the same kind of loss."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(width, width * 3 // 2, batch_first=True), nn.Linear(width * 3 // 2, width)

    def forward(self, fed: Tensor) -> Tensor:
        return self.out(self.lstm(fed)[0])


def flops(batch: int, places: int) -> float:
    """Products of a training step, forward and backward."""
    hidden = WIDTH * 3 // 2
    return 3 * 2.0 * batch * (places * (4 * hidden + WIDTH) * (WIDTH + hidden) + hidden * WIDTH + WIDTH * WIDTH)


def rows_of(batch: int) -> Rows:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(batch, PLACES, WIDTH, generator=generator).to(DEVICE)
    lengths = torch.randint(*LENGTHS, (batch,), generator=generator).to(DEVICE)
    return Rows(torch.randn(batch, WIDTH, generator=generator).to(DEVICE), states, lengths)


def training(row: Row, kind: str) -> Callable[[], None]:
    """A function that takes one training step, all of it on the device."""
    rows, half = rows_of(row.batch), row.precision == "bf16"
    if kind == "cudnn":
        lstm = CuDnn(WIDTH).to(DEVICE)
        optimizer: Any = torch.optim.Adam(lstm.parameters(), fused=True)
        fed = rows.states[:, 1:].contiguous()

        def loss() -> Tensor:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
                prediction = lstm(fed)
            return (prediction.float() - fed).square().mean()
    else:
        torch.manual_seed(0)
        config = LSTMConfig(WIDTH, WIDTH * 3 // 2)
        made = LOOPS.get(kind, LSTMDeprojector)(config).to(DEVICE)
        feed = GraphedFeed(FEEDS[row.feed], row.batch) if kind == "graphs" else FEEDS[row.feed]
        learner = Learner(made, row.selection, feed, half)
        optimizer = DeprojectorModule(learner, States(), 1e-3).configure_optimizers()

        def loss() -> Tensor:
            return States().loss(learner, rows)

    def step() -> None:
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return step


def timed(function: Callable[[], Any], seconds: float = SECONDS) -> tuple[float, float, int]:
    """Median seconds of a call, (largest - smallest) / median, and calls: by events on the card, after three that don't count."""
    for _ in range(3 if CARD else 1):
        function()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < 5 or (time.perf_counter() < end and len(found) < 50):
        if CARD:
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            function()
            after.record()
            after.synchronize()
            found.append(before.elapsed_time(after) / 1e3)
        else:
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
    median = statistics.median(found)
    return median, (max(found) - min(found)) / median, len(found)


def set_precision(precision: str) -> None:
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def measured(make: Callable[[], Callable[[], Any]], seconds: float = SECONDS) -> dict[str, float]:
    """Time of a call, and the most memory that it took beyond what was taken before it was made."""
    if CARD:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    median, spread, calls = timed(make(), seconds)
    found = {"seconds": median, "spread": spread, "calls": calls}
    return found | ({"peak MiB": (torch.cuda.max_memory_allocated() - before) / 2**20} if CARD else {})


def rates(batch: int, precision: str) -> dict[str, float]:
    """FLOP/s of the device: of the product that a place takes, 76 times, and of a large square one."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    hidden = WIDTH * 3 // 2
    x, w = (
        torch.randn(batch, WIDTH + hidden, device=DEVICE).to(kind),
        torch.randn(WIDTH + hidden, 4 * hidden, device=DEVICE).to(kind),
    )
    out = torch.empty(batch, 4 * hidden, device=DEVICE, dtype=kind)

    def places() -> None:
        for _ in range(PLACES - 1):
            torch.mm(x, w, out=out)

    side = pick(8192, 512, 128)
    a, b = (torch.randn(side, side, device=DEVICE).to(kind) for _ in range(2))
    run = places
    if CARD:  # launching them one by one would take longer than they do
        places()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            places()
        run = graph.replay
    of_places = 2.0 * (PLACES - 1) * batch * (WIDTH + hidden) * 4 * hidden / timed(run)[0]
    return {"a place's product": of_places, f"{side}³": 2.0 * side**3 / timed(lambda: a @ b)[0]}


def table() -> Iterator[tuple[Row, list[str]]]:
    """Rows with their columns, the most telling first."""
    peers = ["plain loop", "ours", *(["graphs"] if CARD else [])]
    # A CPU's nn.LSTM refuses bfloat16 where the processor has no such products.
    lstm = PRECISIONS if CARD else ("fp32",)
    for precision in sorted(PRECISIONS, key=lambda p: p != "bf16"):
        for batch in BATCHES:
            for feed in FEEDS:
                yield Row(batch, feed, precision), [*peers, *(["cudnn"] if feed == "batch" and precision in lstm else [])]
    for batch in BATCHES:
        for feed in FEEDS:
            yield Row(batch, feed, "bf16", words=True), peers


def train_rows(part: Part) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    limits = {(b, p): rates(b, p) for p in PRECISIONS for b in BATCHES if not set_precision(p)}
    part.note("FLOP/s of the device", {f"{b} | {p}": value for (b, p), value in limits.items()})
    for row, kinds in table():
        set_precision(row.precision)
        places = PLACES - 1 if not row.words else row.selection(rows_of(row.batch).length).places - 1
        for kind in kinds:
            with part.step(f"{row.name} | {kind}"):
                made = measured(lambda row=row, kind=kind: training(row, kind))
                rate = flops(row.batch, places) / made["seconds"]
                for name, limit in limits[row.batch, row.precision].items():
                    made[f"share of {name}"] = rate / limit
                found.setdefault(row.name, {})[kind] = made
        part.note("training", found)
    return found


def generations(part: Part) -> None:
    found: dict[str, dict[str, Any]] = {}
    config = LSTMConfig(WIDTH, WIDTH * 3 // 2)
    models = {"plain loop": PlainLoop(config).to(DEVICE), "ours": LSTMDeprojector(config).to(DEVICE)}
    for precision in ("fp32", "bf16"):
        set_precision(precision)
        for count in COUNTS:
            embedding = torch.randn(count, WIDTH, device=DEVICE)
            for kind, model in models.items():

                def generate(model: Any = model, e: Tensor = embedding, half: bool = precision == "bf16") -> None:
                    with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
                        model.generate(e)

                with part.step(f"generate {count} | {precision} | {kind}"):
                    found.setdefault(f"{count} | {precision}", {})[kind] = measured(lambda run=generate: run)
    part.note("generation", found)


def compiled(part: Part, found: dict[str, dict[str, Any]]) -> None:
    """torch.compile of a place, last, since it compiles for half a minute a row."""
    if SHORTEST:
        part.skip("torch.compile of a place", "it compiles for too long for the shortest form")
        return
    rows = [Row(BATCHES[0], "recursive", "bf16"), Row(BATCHES[0], "batch", "bf16"), Row(BATCHES[-1], "recursive", "bf16")]
    for row in rows if CARD else rows[:1]:
        set_precision(row.precision)
        with part.step(f"{row.name} | compiled place"):
            found[row.name]["compiled place"] = measured(lambda row=row: training(row, "compiled place"))
        part.note("training", found)


def bars(part: Part, found: dict[str, dict[str, Any]]) -> None:
    """The two that training on a card must reach, and rows in which ours isn't the fastest."""
    for name, kinds in found.items():
        best = min((kinds[kind]["seconds"] for kind in OURS if kind in kinds), default=float("inf"))
        others = {kind: made["seconds"] for kind, made in kinds.items() if kind not in (*OURS, "cudnn")}
        slower = [f"{kind} takes {seconds / best:.2f} of ours" for kind, seconds in others.items() if seconds < best]
        if slower:
            part.found["notes"].setdefault("rows in which ours isn't the fastest", {})[name] = slower
            part.write()
    head = found.get(Row(BATCHES[0], "recursive", "bf16").name, {})
    best = min((head[kind]["seconds"] for kind in OURS if kind in head), default=None)
    for other, bar in (("plain loop", 8.0), ("compiled place", 2.0)):
        name = f"recursive bf16 at batch {BATCHES[0]}: {bar:.0f} times the {other}"
        if not CARD:
            part.skip(name, "a bar for a card at full size")
        elif best is None or other not in head:
            part.check(name, False, "was not measured")
        else:
            ratio = head[other]["seconds"] / best
            part.check(name, ratio >= bar, f"{ratio:.1f} times as fast")


def profiles(part: Part) -> None:
    """Kernels by time of the headline row, and of those in which ours isn't the fastest."""
    from torch.profiler import ProfilerActivity, profile

    names = [Row(BATCHES[0], "recursive", "bf16").name, *part.found["notes"].get("rows in which ours isn't the fastest", {})]
    wanted = [row for row, _ in table() if row.name in names]
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CARD else [])]
    with (OUT / "profiles.txt").open("w", encoding="utf-8") as out:
        for row in wanted[: pick(6, 2, 1)]:
            set_precision(row.precision)
            for kind in OURS if CARD else OURS[:1]:
                step = training(row, kind)
                step()
                with profile(activities=activities) as seen:
                    step()
                    if CARD:
                        torch.cuda.synchronize()
                order = "self_device_time_total" if CARD else "self_cpu_time_total"
                out.write(
                    f"{row.name} | {kind}\n{seen.key_averages().table(sort_by=order, row_limit=20, max_name_column_width=60)}\n"
                )


def main() -> int:
    part = Part()
    found = train_rows(part)
    generations(part)
    compiled(part, found)
    bars(part, found)
    with part.step("profiles"):
        profiles(part)
    return part.end()


if __name__ == "__main__":
    sys.exit(main())
