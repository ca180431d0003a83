"""What combining models gives: ``python experiments/combining/measure.py [SWEEPS]``.

Takes the trained runs of ``experiment=ignored_states``, and eos_onward of ``experiment=recursive_input``, in SWEEPS (``sweeps``),
measures splices and ensembles of them on held-out prompts, as ``deproj.evaluate`` measures runs, and prints the table. An
ensemble of two seeds is of a seed's model and the next seed's. What has been measured lies in ``results/`` beside this file and
isn't measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deproj.data.batches import SamplesModule
from deproj.data.settings import DataSettings
from deproj.evaluate import evaluator_of
from deproj.measure.compare import difference, estimate
from deproj.measure.evaluator import Evaluator
from deproj.model.base import Deprojector
from deproj.model.combine import Ensemble, LengthHead, Splice
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_whole
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.runs.records import KINDS, Evaluation, told
from deproj.selection import AllTokens, EosOnward, TokenSelection
from deproj.settings.compose import read_config
from deproj.texts.benchmark import plain

HERE = Path(__file__).parent
FIXED = 10
FUSES = (0.0, 0.5, 1.0)
#: Feed and selection of the models that are combined.
PARTS = (("batch", "words_eos"), ("batch", "words_eos_reversed"), ("batch", "eos_onward"), ("recursive", "eos_onward"))
SWEEP = {"batch": "ignored_states", "recursive": "recursive_input"}
MEASURES = ("fidelity", "conditioning_error", "noise", "likeness")
#: What each row is compared with, in pairs.
AGAINST = {
    "splice, at 10": "eos_onward, recursive",
    "splice, head": "splice, at 10",
    "splice, true length": "splice, head",
    "reversed splice, head": "splice, head",
    **{f"{name}, fuse {fuse}": "eos_onward, recursive" for name in ("ensemble", "ensemble of two seeds") for fuse in FUSES},
}


class Parts:
    """The trained models of one seed, and the length head fitted to what they were trained on.

    Args:
        next_seed: of the model that goes together with this seed's in an ensemble of two seeds.
    """

    def __init__(self, sweeps: Path, seed: int, next_seed: int, evaluator: Evaluator, config: dict[str, Any]) -> None:
        self.sweeps, self.seed, self.next_seed, self.evaluator, self.config = sweeps, seed, next_seed, evaluator, config
        self.head = self.fitted()

    def model(self, selection: str, feed: str, seed: int | None = None) -> Deprojector:
        folder = self.sweeps / SWEEP[feed] / f"{selection}-{feed}-{self.seed if seed is None else seed}"
        return Deprojector.from_pretrained(folder, self.evaluator.encoder)

    def fitted(self) -> LengthHead:
        data = DataSettings.of(self.config)
        samples = SamplesModule(data, data.source(), self.evaluator.encoder, EosOnward(), seed=0)
        samples.setup()
        assert samples.train is not None
        lengths = torch.from_numpy(samples.train.length.astype("int64"))
        return LengthHead.fit(samples.train.embeddings(len(lengths)), lengths, seed=self.seed)

    def subjects(self) -> Iterator[tuple[str, Callable[[], Any], TokenSelection]]:
        """Name, what makes it, and the order in which it gives states."""

        def spliced(words: str, n: int | LengthHead) -> Splice:
            return Splice.of(self.model(words, "batch"), self.model("eos_onward", "recursive"), n)

        def at_true_length() -> Splice:
            made = spliced("words_eos", FIXED)
            made.words = self.true_words  # type: ignore[method-assign]
            return made

        yield f"splice, at {FIXED}", lambda: spliced("words_eos", FIXED), AllTokens()
        yield "splice, head", lambda: spliced("words_eos", self.head), AllTokens()
        yield "splice, true length", at_true_length, AllTokens()
        yield "reversed splice, head", lambda: spliced("words_eos_reversed", self.head), AllTokens()
        feeds = [("batch", self.seed), ("recursive", self.seed)]
        seeds = [("recursive", self.seed), ("recursive", self.next_seed)]
        for name, members in (("ensemble", feeds), ("ensemble of two seeds", seeds)):
            for fuse in FUSES:
                make = partial(self.ensemble, members, fuse)
                yield f"{name}, fuse {fuse}", make, EosOnward()

    def ensemble(self, members: list[tuple[str, int]], fuse: float) -> Ensemble:
        """Of eos_onward models, each named by its feed and seed."""
        return Ensemble.of([self.model("eos_onward", feed, seed) for feed, seed in members], fuse)

    def evaluated(self) -> Iterator[tuple[str, Evaluation]]:
        """The models by themselves, as their runs were evaluated."""
        for feed, selection in PARTS:
            run = RunFolder(self.sweeps / SWEEP[feed] / f"{selection}-{feed}-{self.seed}")
            result = run.read_evaluation()
            if (result.world, result.prompts) != (self.evaluator.world_hash, self.evaluator.prompts):
                count = len(self.evaluator.prompts)
                raise UserError(f"{run.path} was measured on other prompts; python -m deproj.evaluate {run.path} --count {count}")
            yield f"{selection}, {feed}", result

    def true_words(self, embedding: Tensor) -> Tensor:
        return self.evaluator.encoder(list(map(plain, self.evaluator.prompts))).length - 2

    def head_errors(self) -> str:
        """How often the head is right about the held-out prompts, and by how much it is wrong."""
        prompts, encoder = self.evaluator.prompts, self.evaluator.encoder
        true = self.true_words(torch.empty(0))
        said = []
        for kind, embedding in (("single", encoder(list(map(plain, prompts))).embedding), ("composed", encoder.compose(prompts))):
            wrong = (self.head.words(embedding) - true).abs()
            said.append(f"{kind}: right for {(wrong == 0).float().mean():.1%}, wrong by {wrong.float().mean():.2f} on average")
        return f"seed {self.seed}, {len(prompts)} prompts of {true.min()} to {true.max()} words; " + "; ".join(said)


def measure(sweeps: Path, count: int, chosen: list[int]) -> dict[str, list[Evaluation]]:
    folders = {seed: [sweeps / SWEEP[feed] / f"{selection}-{feed}-{seed}" for feed, selection in PARTS] for seed in chosen}
    seeds = [seed for seed in chosen if all((folder / "result.json").is_file() for folder in folders[seed])]
    if not seeds:
        missing = next(folder for folder in folders[chosen[0]] if not (folder / "result.json").is_file())
        raise UserError(f"{missing} is not trained; first: python -m deproj.train experiment={missing.parent.name}")
    config = read_config(folders[seeds[0]][0] / "config.yaml")
    evaluator = evaluator_of(config, count, 0, None, None)
    found: dict[str, list[Evaluation]] = {}
    for seed, next_seed in zip(seeds, [*seeds[1:], seeds[0]], strict=True):
        parts = Parts(sweeps, seed, next_seed, evaluator, config)
        print(parts.head_errors(), flush=True)
        for name, result in parts.evaluated():
            found.setdefault(name, []).append(result)
        for name, make, order in parts.subjects():
            if seed == next_seed and "seeds" in name:
                continue
            path = HERE / "results" / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}.json"
            result = Evaluation.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
            if result is None or result.world != evaluator.world_hash:  # of a world of before
                result = evaluator(make(), order)
                path.parent.mkdir(exist_ok=True)
                write_whole(path, json.dumps(result.to_json()) + "\n")
                print(f"measured {name}, seed {seed}", file=sys.stderr, flush=True)
            found.setdefault(name, []).append(result)
    return found


def table(found: dict[str, list[Evaluation]]) -> None:
    for kind in ("single", "composed"):
        print(f"\n| {kind} | {' | '.join(map(told, MEASURES))} |\n|---|{'---|' * len(MEASURES)}")
        for name, evaluations in found.items():
            print(f"| {name} | {' | '.join(str(estimate([e.of(kind) for e in evaluations], measure)) for measure in MEASURES)} |")
    shown = MEASURES[:2]
    print(f"\n| difference | against | {' | '.join(f'{m}, {kind}' for m in shown for kind in ('single', 'composed'))} |")
    print(f"|---|---|{'---|' * 2 * len(shown)}")
    for name, other in AGAINST.items():
        if name not in found:
            continue
        pairs = [([e.of(kind) for e in found[name]], [e.of(kind) for e in found[other]], m) for m in shown for kind in KINDS]
        cells = [str(difference(ours, theirs, m)) for ours, theirs, m in pairs]
        print(f"| {name} | {other} | {' | '.join(cells)} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", nargs="?", type=Path, default=Path("sweeps"))
    parser.add_argument("--count", type=int, default=200, help="held-out prompts, single and composed each (200)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="training seeds; taken are those that are there")
    args = parser.parse_args()
    quiet_libraries()
    return run_command(lambda: table(measure(args.sweeps, args.count, args.seeds)))


if __name__ == "__main__":
    sys.exit(main())
