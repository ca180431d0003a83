"""Runs, baselines and measured models read back from their folders, and grouped into settings."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from deproj.measure.labels import Labels
from deproj.process.errors import UserError
from deproj.runs.commands import evaluate_again, evaluate_baseline, evaluate_model, train_again
from deproj.runs.distinguishing import default_settings, distinguishing
from deproj.runs.folder import RunFolder
from deproj.runs.listing import state_of
from deproj.runs.records import KINDS, Evaluation, Measured, RunResult
from deproj.selection import SELECTIONS

__all__ = ["LeftOut", "Result", "Setting", "collect"]

#: Prompts that `deproj.evaluate` measures on unless it is told otherwise.
PROMPTS = 200
#: The article's order of the settings.
ORDER = tuple(SELECTIONS)


@dataclass(frozen=True)
class Result:
    """A run, a baseline or a measured model with its evaluation.

    Attributes:
        kind: ``run``, ``baseline`` or ``model``.
        names: what it is called, by what: its choices of model, selection, feed and objective, or its own name.
        rank: its place in tables.
        mean: whether composed prompts were the mean of their parts' embeddings.
        seed: of training; None but for a run.
        curve: (epoch, held-out free-running loss).
        ended: how the run ended; None but for a run.
        extra: settings that differ from the default ones, by dotted key.
    """

    run: RunFolder
    kind: str
    names: dict[str, str]
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
        count, seed = len(self.evaluation.prompts), self.evaluation.seed
        if self.kind == "model":
            return evaluate_model(str(self.model), self.config, count, seed)
        return evaluate_baseline(self.run, self.names["baseline"], self.names["selection"], count, seed)

    @property
    def model(self) -> str | Path | None:
        """What its model is loaded by; None where there is none, or its numbers alone were kept."""
        if self.kind == "model":
            named = self.run.read_measured().model
            return self.run.path if named == "." else named
        return self.run.model if self.run.model.is_dir() else None

    @property
    def file(self) -> Path:
        """What says how it was made."""
        return {"run": self.run.config, "baseline": self.run.baseline, "model": self.run.measured}[self.kind]


@dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed alone.

    Attributes:
        label: what distinguishes it from the other settings at hand.
        name: its choices in full, as ``eos_onward, recursive``.
        unsaid: settings that distinguish it too, and follow from what the label says.
    """

    label: str
    name: str
    results: list[Result]
    unsaid: Sequence[str] = ()

    def measured(self, kind: str) -> list[Measured]:
        """What was measured on a kind of prompts, of each run."""
        return [result.evaluation.of(kind) for result in self.results]

    @property
    def first(self) -> Result:
        return self.results[0]

    @property
    def baseline(self) -> bool:
        return self.first.kind == "baseline"

    @property
    def trained_here(self) -> bool:
        """Whether it is of runs, with seeds and learning curves."""
        return self.first.kind == "run"

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of prompts that it was measured on: single ones have no parts to take a mean of."""
        return KINDS[1:] if self.first.mean else KINDS


#: A folder that is in no table, and why.
LeftOut = tuple[Path, str]


def find(folders: list[Path]) -> Iterator[RunFolder]:
    """Folders of runs, baselines, models and jobs, in and under those named, each once."""
    seen: set[Path] = set()
    for folder in folders:
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
        if (run.is_run or run.job.is_file()) and not run.result.is_file():
            state, why = state_of(run)
            raise UserError(f"{state}: {why}" if why else state) from None
        raise UserError(f"not evaluated: {evaluate_again(run)}") from None
    if run.is_baseline:
        about = run.read_baseline()
        rank = (2, about.baseline, place_of(about.selection))
        names = {"baseline": about.baseline, "selection": about.selection}
        return Result(run, "baseline", names, rank, evaluation, about.config)
    if run.is_measured_model:
        known = run.read_measured()
        called = {"name": run.path.name if known.model == "." else known.model}
        return Result(run, "model", called, (1, called["name"]), evaluation, known.config, mean, extra=composed_as(mean))
    config = run.read_config()
    try:
        names, rank = names_of(config["choices"])
        extra = distinguishing(defaults, config) | composed_as(mean)
        seed, ended = int(config["seed"]), run.read_result()
        return Result(run, "run", names, rank, evaluation, config, mean, seed, run.learning_curve(), ended, extra)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"broken: {type(error).__name__}: {error}") from None


def composed_as(mean: bool) -> dict[str, Any]:
    return {"composed": "mean"} if mean else {}


def names_of(choices: dict[str, Any]) -> tuple[dict[str, str], tuple[Any, ...]]:
    """What a run's choices are called, and their place in tables. A feed means nothing to a model that isn't an LSTM."""
    selection, feed, model, objective = (choices[group] for group in ("selection", "feed", "model", "objective"))
    others = {} if objective == "states" else {"objective": objective}
    if model != "lstm":
        return {"model": model, "selection": selection, **others}, (0, 1, model, place_of(selection), objective)
    return {"selection": selection, "feed": feed, **others}, (0, 0, place_of(selection), feed, objective)


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
    most = next(result for result in results if made_on(result) == kept).evaluation
    left_out = []
    for result in (result for result in results if made_on(result) != kept):
        what = "with another Stable Diffusion" if result.evaluation.world != most.world else "on other prompts"
        left_out.append((result.run.path, f"measured {what} than most; to measure it as these: {as_measured(result, most)}"))
    return [result for result in results if made_on(result) == kept], left_out


def as_measured(result: Result, evaluation: Evaluation) -> str:
    """The command that measures what a result is of once more, on the prompts and seeds of another evaluation."""
    if result.kind != "run":
        return replace(result, evaluation=evaluation).command
    count, seed = len(evaluation.prompts), evaluation.seed
    fewer = count < len(result.evaluation.prompts)
    options = [f"--count {count}"] * (count != PROMPTS) + [f"--seed {seed}"] * (seed != 0) + ["--compose-mean"] * result.mean
    options += ["--overwrite"] * fewer
    return " ".join([evaluate_again(result.run), *options])


def grouped(results: list[Result]) -> tuple[list[Setting], list[LeftOut]]:
    """Settings, each labelled by what distinguishes its results from the others at hand."""
    labels = Labels(results)
    groups: dict[str, list[Result]] = {}
    left_out: list[LeftOut] = []
    for result in sorted(results, key=lambda r: (str((*r.rank, *labels.told(r))), r.seed or 0)):
        members = groups.setdefault(labels.label(result), [])
        if any(result.seed == other.seed for other in members):
            left_out.append((result.run.path, f"the same setting and seed as {members[-1].run.path.as_posix()}"))
        else:
            members.append(result)
    settings = [
        Setting(label, ", ".join(members[0].names.values()), members, labels.unsaid(members[0]))
        for label, members in groups.items()
    ]
    return settings, left_out
