"""What is timed: training steps, generation, encoding and drawing, each with its useful arithmetic."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deproj.data.batches import EpochOrder, sorting_pays
from deproj.data.cache import Rows
from deproj.data.sources import GrammarPrompts
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.feed import Batch, FeedMode, Recursive
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process import system
from deproj.process.progress import Progress
from deproj.selection import PLACES, SELECTIONS, EosOnward, TokenSelection
from deproj.speed.peers import like, peers
from deproj.training.graphs import GraphedFeed
from deproj.training.module import DeprojectorModule
from deproj.training.objective.base import Learner, States, weighted_loss

FEEDS: dict[str, FeedMode] = {"recursive": Recursive(), "batch": Batch()}
#: D; H is 1.5 D.
SIZES = {"real": 768, "pixel": 128}
BATCH = 100


@dataclass
class Case:
    """One thing that is timed.

    Attributes:
        run: does it `units` times.
        flops: of one unit, products alone.
        against: name of the case that its ratio is taken to.
        group: of cases that do the same, of which the fastest is marked.
        optional: whether it is left out where it fails, as `torch.compile` does without Python's headers.
    """

    name: str
    run: Callable[[], Any]
    flops: float
    precision: str = "32"
    units: int = 1
    unit: str = "step"
    against: str | None = None
    group: str | None = None
    optional: bool = False
    seconds: list[float] = field(default_factory=list)  # of one unit, by round


def step_flops(width: int, batch: int, places: int) -> float:
    """Products of `places` places for `batch` sequences, forward."""
    hidden = width * 3 // 2
    return 2.0 * batch * (places * (4 * hidden + width) * (width + hidden) + hidden * width + width * width)


def bench_lengths() -> Tensor:
    """Lengths like those of captions, 5 to 25, of twenty batches."""
    return torch.randint(5, 26, (20 * BATCH,), generator=torch.Generator().manual_seed(0))


class Training:
    """Training steps of one size, of ours and of the plain loop, on random states."""

    def __init__(self, size: str, device: str) -> None:
        self.width, self.device = SIZES[size], device
        config = LSTMConfig(self.width, self.width * 3 // 2)
        torch.manual_seed(0)
        self.ours = LSTMDeprojector(config).to(device)
        self.peers = {name: like(peer, self.ours).to(device) for name, peer in peers(device).items()}
        self.states = torch.randn(BATCH, PLACES, self.width, device=device)
        self.embedding = torch.randn(BATCH, self.width, device=device)

    def batches(self, selection: TokenSelection) -> list[Rows]:
        """Batches as training forms them: one, or, of like lengths, five that stand for all."""
        lengths = bench_lengths()
        sort = sorting_pays(selection, lengths.numpy(), BATCH)
        order = list(EpochOrder(len(lengths), BATCH, 0, lengths.numpy() if sort else None))
        chosen = sorted(order, key=lambda batch: float(lengths[batch].float().mean()))[2::4] if sort else order[:1]
        return [Rows(self.embedding, self.states, lengths[batch].to(self.device)) for batch in chosen]

    def step(
        self, selection: TokenSelection, feed: FeedMode, half: bool, peer: str | None = None
    ) -> tuple[Callable[[], None], float, int]:
        """A function that trains on all batches, useful arithmetic of a step, and steps.

        Args:
            peer: the model, one of `peers`, in the place of ours.
        """
        model: Deprojector = self.ours if peer is None else self.peers[peer]
        learner = Learner(model, selection, feed, half)
        optimizer = DeprojectorModule(learner, States(), 1e-3).configure_optimizers()
        batches = self.batches(selection) if peer is None else self.batches(selection)[:1]
        places = [PLACES - 1 if peer is not None else selection(rows.length).places - 1 for rows in batches]

        def loss(rows: Rows) -> Tensor:
            if peer is None:
                return States().loss(learner, rows)
            plan = selection(rows.length)  # a plain loop computes every place
            target = plan.arrange(rows.states)[:, 1:]
            with torch.autocast(self.device, torch.bfloat16, enabled=half):
                prediction = feed(model, rows.embedding, target)
            return weighted_loss(prediction.float(), target, plan.weight[:, 1:], PLACES)

        def run() -> None:
            for rows in batches:
                optimizer.zero_grad()
                loss(rows).backward()
                optimizer.step()
            wait(self.device)

        return run, sum(3 * step_flops(self.width, BATCH, count) for count in places) / len(places), len(batches)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def cases(quick: bool, device: str) -> Iterator[Case]:
    """All that is measured, the plain loops first; `quick` leaves most of the real size out."""
    kinds = {"32": torch.float32, "bf16": torch.bfloat16} | ({"16": torch.float16} if device == "cuda" else {})
    for precision, kind in kinds.items():
        a, b = (torch.randn(2048, 2048, device=device).to(kind) for _ in range(2))

        def product(a: Tensor = a, b: Tensor = b) -> None:
            a @ b
            wait(device)

        yield Case(f"product 2048³ | {precision}", product, 2 * 2048.0**3, precision, unit="product")
    for size, width in SIZES.items():
        training = Training(size, device)
        few = quick and size == "real"
        feeds = {"recursive": FEEDS["recursive"]} if few else FEEDS
        precisions = ["32", "bf16"]
        for feed_name, feed in feeds.items():
            against = f"train {size} | any | {feed_name} | 32 | plain loop"
            for precision, peer in itertools.product(["32"] if quick else precisions, training.peers):
                if peer != "plain loop" and (quick or precision == "bf16"):
                    continue
                run, flops, steps = training.step(EosOnward(), feed, precision == "bf16", peer)
                name = f"train {size} | any | {feed_name} | {precision} | {peer}"
                group = f"{size}, {feed_name}"
                own = None if name == against else against
                optional = peer == "torch.compile"
                yield Case(name, run, flops, precision, steps, against=own, group=group, optional=optional)
        for selection_name in ["eos_onward"] if few else ["words_eos", "eos_onward"] if quick else SELECTIONS:
            for feed_name, feed in feeds.items():
                for precision in precisions:
                    graphs = [False, True] if device == "cuda" else [False]
                    for graphed in graphs:
                        made = GraphedFeed(feed, BATCH) if graphed else feed
                        run, flops, steps = training.step(SELECTIONS[selection_name], made, precision == "bf16")
                        name = f"train {size} | {selection_name} | {feed_name} | {precision} | {'graphs' if graphed else 'ours'}"
                        against = f"train {size} | any | {feed_name} | 32 | plain loop"
                        alike = f"{size}, {feed_name}" if selection_name == "all" else None  # as many places as the peers
                        yield Case(name, run, flops, precision, steps, against=against, group=alike)
        for count in (1, 1000):
            if few and count > 1:
                continue
            embeddings = torch.randn(count, width, device=device)
            against = f"generate {size} | {count} | 32 | plain loop"
            for model, label, precision in (
                (training.peers["plain loop"], "plain loop", "32"), (training.ours, "ours", "32"), (training.ours, "ours", "bf16")
            ):  # fmt: skip

                def generate(model: Deprojector = model, e: Tensor = embeddings, half: bool = precision == "bf16") -> None:
                    with torch.autocast(device, torch.bfloat16, enabled=half):
                        model.generate(e)
                    wait(device)

                name = f"generate {size} | {count} | {precision} | {label}"
                flops = step_flops(width, count, PLACES - 1)
                yield Case(name, generate, flops, precision, unit="call", against=None if name == against else against)
    yield from pixel_world(device)
    if not quick:
        yield real_encoder(device)


def pixel_world(device: str) -> Iterator[Case]:
    """Encoding and drawing in the shipped world."""
    sd = StableDiffusion.named("pixel")
    encoder = sd.encoder(device)
    texts = list(itertools.islice(GrammarPrompts().training(0), 100))
    yield counted("encode pixel | 100 captions", lambda: encoder(texts), len(texts), "text", device)
    renderer, states = sd.renderer(encoder, device), encoder(texts[:6]).states
    name = f"draw pixel | 6 pictures, {sd.settings.steps} steps"
    precision = "16" if renderer.dtype == torch.float16 else "32"
    yield counted(name, lambda: renderer(states, range(6)), 6, "picture", device, precision)


def real_encoder(device: str) -> Case:
    """The text tower of CLIP ViT-L/14 with random weights."""
    from transformers import CLIPTextConfig, CLIPTextModel

    model = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12))
    model.eval().requires_grad_(False).to(device)
    ids = torch.randint(0, 49406, (20, PLACES), device=device)
    return counted("encode real | 20 texts, random weights", lambda: model(input_ids=ids), len(ids), "text", device)


def counted(name: str, function: Callable[[], Any], units: int, unit: str, device: str, precision: str = "32") -> Case:
    with FlopCounterMode(display=False) as counter:
        function()

    def run() -> None:
        function()
        wait(device)

    return Case(name, run, counter.get_total_flops() / units, precision, units=units, unit=unit)


def measure(found: list[Case], rounds: int, progress: Progress) -> None:
    """Times every case once a round, after a first time that isn't counted."""
    with progress.phase("measuring", len(found) * (rounds + 1)) as phase:
        for number in range(rounds + 1):
            for case in list(found):
                start = time.perf_counter()
                try:
                    case.run()
                except Exception as error:
                    if not case.optional or number:
                        raise
                    print(f"{case.name} is left out: {type(error).__name__}: {str(error).strip().splitlines()[0][:150]}")
                    found.remove(case)
                if number:
                    case.seconds.append((time.perf_counter() - start) / case.units)
                phase.advance()


def peak_memory(code: str, device: str) -> float | None:
    """Peak memory in MiB of a process that trains three steps at the real size, eos_onward fed recursively.

    None where the system doesn't say.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_train_three, (code, device))


def _train_three(code: str, device: str) -> float | None:
    peer = None if code.startswith("ours") else code
    run, _, _ = Training("real", device).step(EosOnward(), Recursive(), code == "ours bf16", peer)
    for _ in range(3):
        run()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return system.peak_memory()
