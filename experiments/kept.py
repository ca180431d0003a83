"""What the experiments keep of their runs, read by patterns: for the scripts beside this file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from deproj.draw.stable_diffusion import StableDiffusion
from deproj.measure.evaluator import Evaluator
from deproj.process.errors import UserError
from deproj.runs.folder import RunFolder
from deproj.runs.records import Evaluation, Measured

EXPERIMENTS = Path(__file__).resolve().parent
SELECTIONS = ("all", "words_eos", "words_eos_reversed", "eos_onward")


@dataclass(frozen=True)
class Kept:
    """A setting: what it is called, and the runs of it, one a seed.

    Attributes:
        runs: ``EXPERIMENT/NAME``, with ``*`` for the seed.
        mean: whether composed prompts are the mean of their parts; a single prompt has no parts.
    """

    label: str
    runs: str
    mean: bool = False

    def evaluations(self) -> list[Evaluation]:
        """Of each seed.

        Raises:
            UserError: where there is none.
        """
        experiment, name = self.runs.split("/")
        found = sorted((EXPERIMENTS / experiment / "runs").glob(name))
        if not found:
            raise UserError(f"there is no run {self.runs} in {EXPERIMENTS}; python experiments/jobs.py {experiment}")
        return [RunFolder(path).read_evaluation(self.mean) for path in found]

    def measured(self, kind: str) -> list[Measured]:
        return [evaluation.of(kind) for evaluation in self.evaluations()]


@cache
def world_of(clip_skip: int = 1) -> str:
    """The hash of the pixel world as it is here."""
    sd = StableDiffusion.named("pixel").with_clip_skip(clip_skip)
    encoder = sd.encoder("cpu")
    return Evaluator(encoder, sd.renderer(encoder, "cpu"), [], None, Path()).world_hash


def of_one_world(settings: Iterable[Kept], what: str) -> None:
    """Refuses settings that were measured in different worlds.

    Raises:
        UserError: with what to run first.
    """
    if len({evaluation.world for setting in settings for evaluation in setting.evaluations()}) > 1:
        raise UserError(f"the runs of {what} were measured in different worlds: python experiments/jobs.py first.")
