"""Part 2: it is fast. Training and generation at Stable Diffusion's size, ours beside its peers, each with its peak memory.

Peers: the plain loop under autograd; the same with `torch.compile` of its step (compiling the unrolled loop takes minutes);
`nn.LSTM` of the same width as cuDNN runs it, without layer norms, fed the true states: what the norms cost. A share is the
useful arithmetic over the time, over the card's measured rate of products of these shapes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from shared import CUDA, DEVICE, OUT, SHORT, check, end, keep, table, timed
from torch import Tensor, nn

from deproj.data.cache import Rows
from deproj.feed import Batch, FeedMode, Recursive
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.selection import PLACES, SELECTIONS
from deproj.speed.cases import step_flops
from deproj.speed.peers import PlainLoop
from deproj.training.graphs import GraphedFeed
from deproj.training.module import DeprojectorModule

WIDTH = 768 if CUDA else 64
HIDDEN = WIDTH * 3 // 2
BATCHES = (100, 1000) if CUDA else (20,)
FEEDS: dict[str, FeedMode] = {"recursive": Recursive(), "batch": Batch()}
ROWS: list[dict[str, Any]] = []


class Compiled(PlainLoop):
    """The plain loop with a compiled step."""

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.fast: Any = torch.compile(super().step, dynamic=False)

    def step(self, state: Any, fed: Tensor) -> Any:
        return self.fast(state, fed)


class Normless(nn.Module):
    """`nn.LSTM` of the same width, and the output's product."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(WIDTH, HIDDEN, batch_first=True), nn.Linear(HIDDEN, WIDTH)

    def forward(self, fed: Tensor) -> Tensor:
        out: Tensor = self.out(self.lstm(fed)[0])
        return out


def rows_of(batch: int) -> Rows:
    """Random states of captions' lengths."""
    made = torch.Generator().manual_seed(0)
    length = torch.randint(5, 26, (batch,), generator=made)
    return Rows(torch.randn(batch, WIDTH, device=DEVICE), torch.randn(batch, PLACES, WIDTH, device=DEVICE), length.to(DEVICE))


def rate(batch: int, half: bool) -> float:
    """Products a second of the shape of a step's larger one."""
    dtype = torch.bfloat16 if half else torch.float32
    a, b = (torch.randn(*shape, device=DEVICE, dtype=dtype) for shape in ((batch, WIDTH + HIDDEN), (WIDTH + HIDDEN, 4 * HIDDEN)))
    seconds, _ = timed(lambda: [a @ b for _ in range(20)])
    return 20 * 2.0 * batch * (WIDTH + HIDDEN) * 4 * HIDDEN / seconds


def trained(module: DeprojectorModule, feed: FeedMode, rows: Rows) -> Callable[[], None]:
    """A training step."""
    optimizer = module.configure_optimizers()

    def step() -> None:
        optimizer.zero_grad()
        module.loss(rows, feed).backward()
        optimizer.step()

    return step


def note(name: dict[str, Any], step: Callable[[], None], flops: float, rates: float, times: int = 5) -> None:
    """Times a step and keeps the row; an error is the row's."""
    try:
        seconds, peak = timed(step, 3, times)
        row = {**name, "ms": 1e3 * seconds, "share": flops / seconds / rates, "peak MiB": peak}
    except Exception as error:
        row = {**name, "error": f"{type(error).__name__}: {str(error)[:200]}"}
    ROWS.append(row)
    table(ROWS, "training")


def training(batch: int, selection: str, feed_name: str, precision: str, kinds: list[str]) -> None:
    """All kinds of one case."""
    half, feed, rows = precision == "bf16", FEEDS[feed_name], rows_of(batch)
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    plan = SELECTIONS[selection]
    places, rates = plan(rows.length).places - 1, rate(batch, half)
    flops = 3 * step_flops(WIDTH, batch, places)
    models = {"plain loop": PlainLoop, "compiled": Compiled, "ours": LSTMDeprojector, "graphs": LSTMDeprojector}
    for kind in kinds:
        name = {"batch": batch, "selection": selection, "feed": feed_name, "precision": precision, "kind": kind}
        if kind == "nn.LSTM":
            normless = Normless().to(DEVICE)
            fed = rows.states[:, :places]

            def step(model: nn.Module = normless, fed: Tensor = fed) -> None:
                with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
                    out = model(fed)
                out.float().square().sum().backward()

            note(name, step, flops, rates)
            continue
        torch.manual_seed(0)
        model = models[kind](LSTMConfig(WIDTH, HIDDEN)).to(DEVICE)
        made = GraphedFeed(feed, batch) if kind == "graphs" else feed
        note(name, trained(DeprojectorModule(model, plan, made, 1e-3, half), made, rows), flops, rates)


def generation() -> None:
    """Sequences a second, free-running."""
    found = []
    for count in (1, 100, 1000) if CUDA else (1, 10):
        embedding = torch.randn(count, WIDTH, device=DEVICE)
        for kind, cls in (("plain loop", PlainLoop), ("ours", LSTMDeprojector)):
            model = cls(LSTMConfig(WIDTH, HIDDEN)).to(DEVICE).eval()
            for precision in ("32", "bf16"):

                def make(model: LSTMDeprojector = model, half: bool = precision == "bf16", e: Tensor = embedding) -> None:
                    with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
                        model.generate(e)

                seconds, peak = timed(make)
                found.append({"count": count, "kind": kind, "precision": precision, "ms": 1e3 * seconds, "peak MiB": peak})
                table(found, "generation")


def verdict() -> None:
    """Whether ours is the fastest of each case; a profile where it isn't; the bars."""
    cases: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in ROWS:
        if "ms" in row:
            cases.setdefault(tuple(row[key] for key in ("batch", "selection", "feed", "precision")), {})[row["kind"]] = row["ms"]
    slower = []
    for case, by_kind in cases.items():
        ours = min(by_kind.get("ours", float("inf")), by_kind.get("graphs", float("inf")))
        with_norms = {kind: ms for kind, ms in by_kind.items() if kind != "nn.LSTM"}
        if ours > min(with_norms.values()):
            slower.append(case)
    keep("cases in which ours is not the fastest", slower)
    if slower and CUDA:
        profile(*slower[0])
    bar = cases.get((100, "all", "recursive", "bf16"), {})
    if CUDA and "plain loop" in bar:
        ours = min(bar.get("ours", float("inf")), bar.get("graphs", float("inf")))
        check(bar["plain loop"] / ours >= 8, f"at least 8 times the plain loop: {bar['plain loop'] / ours:.1f}")
        if "compiled" in bar:
            check(bar["compiled"] / ours >= 2, f"at least 2 times the compiled loop: {bar['compiled'] / ours:.1f}")


def profile(batch: int, selection: str, feed_name: str, precision: str) -> None:
    """The kernels of a step of ours by their time."""
    rows, feed = rows_of(batch), FEEDS[feed_name]
    model = LSTMDeprojector(LSTMConfig(WIDTH, HIDDEN)).to(DEVICE)
    step = trained(DeprojectorModule(model, SELECTIONS[selection], feed, 1e-3, precision == "bf16"), feed, rows)
    step()
    with torch.profiler.profile() as profiler:
        step()
    said = profiler.key_averages().table(sort_by="cuda_time_total", row_limit=40)
    (OUT / "kernels.txt").write_text(f"{batch} {selection} {feed_name} {precision}\n{said}\n", encoding="utf-8")


def main() -> None:
    precisions = ["32", "tf32", "bf16"] if CUDA else ["32", "bf16"]
    everything = ["plain loop", "nn.LSTM", "ours", *(["graphs"] if CUDA else [])]
    few = [kind for kind in everything if kind != "nn.LSTM"]
    for batch in BATCHES:
        for precision in precisions[-1:] if SHORT else reversed(precisions):
            training(batch, "all", "recursive", precision, few)
            training(batch, "all", "batch", precision, everything)
        training(batch, "words_eos", "recursive", "bf16", few)
        training(batch, "eos_onward", "recursive", "bf16", few)
    generation()
    if CUDA and not SHORT:  # last, since compiling may take long
        for precision in ("bf16", "32"):
            training(100, "all", "recursive", precision, ["compiled"])
    verdict()
    failed = [row for row in ROWS if "error" in row and row["kind"] in ("ours", "graphs", "plain loop")]
    check(not failed, f"no case fails: {failed[:2]}")


main()
end()
sys.exit(0)
