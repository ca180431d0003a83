"""Runs and baselines read back from their folders, and grouped into settings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deproj.process.errors import UserError
from deproj.runs.commands import evaluate_again, evaluate_baseline, train_again
from deproj.runs.distinguishing import default_settings, distinguishing
from deproj.runs.folder import RunFolder
from deproj.runs.records import KINDS, Evaluation, Measured, RunResult
from deproj.selection import SELECTIONS

__all__ = ["LeftOut", "Result", "Setting", "collect"]

#: The article's order of the settings.
ORDER = tuple(SELECTIONS)


@dataclass(frozen=True)
class Result:
    """A run or baseline with its evaluation.

    Attributes:
        name: selection and feed, or kind of baseline and selection.
        rank: its place in tables.
        mean: whether composed prompts were the mean of their parts' embeddings.
        seed: of training; None for a baseline.
        curve: (epoch, held-out free-running loss).
        ended: how the run ended; None for a baseline.
        extra: settings that differ from the default ones, by dotted key.
    """

    run: RunFolder
    name: str
    rank: tuple[Any, ...]
    evaluation: Evaluation
    config: dict[str, Any]
    mean: bool = False
    seed: int | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    ended: RunResult | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """The command that makes it again."""
        if self.seed is not None:
            return train_again(self.config)
        evaluation, selection = self.evaluation, self.config["choices"]["selection"]
        kind = self.run.read_baseline().baseline
        return evaluate_baseline(self.run, kind, selection, len(evaluation.prompts), evaluation.seed)


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone.

    Attributes:
        label: what distinguishes it from the other settings at hand.
    """

    label: str
    results: list[Result]

    def measured(self, kind: str) -> list[Measured]:
        """What was measured on a kind of prompts, of each run."""
        return [result.evaluation.of(kind) for result in self.results]

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def baseline(self) -> bool:
        return self.first.seed is None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of prompts that it was measured on: single ones have no parts to take a mean of."""
        return KINDS[1:] if self.first.mean else KINDS


#: A folder that is in no table, and why.
LeftOut = tuple[Path, str]


def find(folders: list[Path]) -> Iterator[RunFolder]:
    """Folders of runs and baselines, in and under those named, each once."""
    seen: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}.")
        if not (found := RunFolder.under(folder)):
            raise UserError(f"{folder} holds no runs.")
        for run in found:
            if run.path.resolve() not in seen:
                seen.add(run.path.resolve())
                yield run


def read(run: RunFolder, defaults: dict[str, Any], mean: bool = False) -> Result:
    """A run or baseline.

    Args:
        defaults: the settings of a run that sets nothing.
        mean: whether to read its measures with composed prompts as means.

    Raises:
        UserError: that names what it lacks.
    """
    try:
        evaluation = run.read_evaluation(mean)
    except OSError:
        if not run.is_baseline and not run.result.is_file():
            raise UserError("unfinished") from None
        raise UserError(f"not evaluated: {evaluate_again(run)}") from None
    if run.is_baseline:
        about = run.read_baseline()
        rank = (1, about.baseline, place_of(about.selection))
        return Result(run, f"{about.baseline}, {about.selection}", rank, evaluation, about.config)
    config = run.read_config()
    try:
        name, rank = name_of(config["choices"])
        extra = distinguishing(defaults, config)
        if mean:
            extra["composed"] = "mean"
        return Result(
            run, name, rank, evaluation, config, mean, int(config["seed"]), run.learning_curve(), run.read_result(), extra
        )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"broken: {type(error).__name__}: {error}") from None


def name_of(choices: dict[str, Any]) -> tuple[str, tuple[Any, ...]]:
    """What a run's choices are called, and their place in tables."""
    selection, feed, model, objective = (choices[group] for group in ("selection", "feed", "model", "objective"))
    others = "" if objective == "states" else f", {objective}"
    if model != "lstm":
        return f"{model}, {selection}{others}", (1, model, place_of(selection), others)
    return f"{selection}, {feed}{others}", (0, place_of(selection), feed, others)


def place_of(selection: str) -> tuple[int, str]:
    return (ORDER.index(selection) if selection in ORDER else len(ORDER), selection)


def made_on(result: Result) -> str:
    """What must be the same of all that is compared: the world, the prompts, the seeds."""
    evaluation = result.evaluation
    return json.dumps([evaluation.world, evaluation.prompts, evaluation.seed])


def collect(folders: list[Path]) -> tuple[list[Setting], list[LeftOut]]:
    """Settings in order, and what was left out with the reason.

    Raises:
        UserError: where there is nothing to compare.
    """
    results, left_out = read_all(folders)
    results, strange = of_one_world(results)
    left_out += strange
    if not results:
        reasons = "; ".join(f"{folder}: {reason}" for folder, reason in left_out[:3])
        raise UserError(f"nothing to report: {reasons}")
    settings, twins = grouped(results)
    return settings, left_out + twins


def read_all(folders: list[Path]) -> tuple[list[Result], list[LeftOut]]:
    """All runs and baselines that can be read, measured in either way."""
    defaults = default_settings()
    found = list(find(folders))
    files = [(run, False) for run in found] + [(run, True) for run in found if run.evaluation(mean=True).is_file()]
    results, left_out = [], []
    for run, mean in files:
        try:
            results.append(read(run, defaults, mean))
        except UserError as error:
            left_out.append((run.path, str(error)))
    return results, left_out


def of_one_world(results: list[Result]) -> tuple[list[Result], list[LeftOut]]:
    """Those that were measured as most were."""
    if not results:
        return [], []
    kept = Counter(map(made_on, results)).most_common(1)[0][0]
    left_out = []
    for result in (result for result in results if made_on(result) != kept):
        again = evaluate_again(result.run)
        if result.evaluation.world != json.loads(kept)[0]:
            reason = f"of another world than most; if it is the same by now: {again}"
        else:
            reason = f"evaluated on other prompts than most: {again}"
        left_out.append((result.run.path, reason))
    return [result for result in results if made_on(result) == kept], left_out


def grouped(results: list[Result]) -> tuple[list[Setting], list[LeftOut]]:
    """Settings, each labelled by what distinguishes its runs from the others at hand."""
    runs = [result.extra for result in results if result.seed is not None]

    def told(result: Result) -> list[str]:
        return [f"{k}={v}" for k, v in result.extra.items() if any(other.get(k) != v for other in runs)]

    groups: dict[str, list[Result]] = {}
    left_out: list[LeftOut] = []
    for result in sorted(results, key=lambda r: (str((*r.rank, *told(r))), r.seed or 0)):
        members = groups.setdefault(", ".join([result.name, *told(result)]), [])
        if any(result.seed == other.seed for other in members):
            left_out.append((result.run.path, f"the same setting and seed as {members[-1].run.path.as_posix()}"))
        else:
            members.append(result)
    return [Setting(label, members) for label, members in groups.items()], left_out
