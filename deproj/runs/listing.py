"""Runs and sweeps as rows: state, what distinguishes them, epochs, losses and measures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

import yaml

from deproj.process.errors import UserError
from deproj.process.files import alone, below
from deproj.runs.distinguishing import default_settings, distinguishes, distinguishing, value_at
from deproj.runs.folder import RunFolder
from deproj.settings.earlier import completed

__all__ = ["Listed", "best_first", "listed", "state_of", "table"]

INDEX = "sweep.csv"
COLUMNS = ("folder", "state", "settings", "epochs", "held-out loss", "composed fidelity", "composed conditioning error")
#: What a held-out loss depends on beside the model.
LOSSES = {
    *("selection", "objective", "objective.states", "objective.extra", "sd"),
    *("data.split", "data.combine", "data.parts", "data.prompts", "data.column", "data.marks"),
}
OWN = ("selection.", "sd.")
#: Settings that distinguish runs in a list, and not in a comparison, where all have one world.
BESIDE = ("init_from", "sd.path", "sd.clip_skip")
MEASURES = ("composed/fidelity", "composed/conditioning_error")


@dataclass
class Listed:
    """A run.

    Attributes:
        group: its sweep's folder, or the folder that it stands in.
        state: done, running, interrupted, failed, killed or unreadable.
        settings: by name; those that differ from the default ones, and always selection, feed and seed.
        why: it failed, in a line.
    """

    run: RunFolder
    group: Path
    state: str
    settings: dict[str, Any] = field(default_factory=dict)
    epochs: str = ""
    loss: float | None = None
    measures: tuple[float | None, ...] = (None,) * len(MEASURES)
    why: str = ""


def at_work(run: RunFolder) -> bool:
    """Whether a process is at work on a run."""
    if not run.lock.is_file():
        return False
    try:
        with alone(run.lock, refusal="at work"):
            return False
    except UserError:
        return True
    except OSError:  # a folder of somebody else
        return False


def state_of(run: RunFolder) -> tuple[str, str]:
    """The state of a run, and why it failed."""
    if at_work(run):
        return "running", ""
    if run.finished() is not None:
        return "done", ""
    if run.error.is_file():
        return "failed", run.error.read_text(encoding="utf-8").strip()
    if run.job.is_file() and (job := run.read_job()).state in ("failed", "killed"):
        return job.state, job.error
    return "interrupted", ""


def glanced(run: RunFolder) -> dict[str, Any]:
    """A run's settings for a look at them: `RunFolder.read_config` is five times as slow, which a hundred runs would feel."""
    try:
        content = yaml.load(run.config.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        raise UserError(f"config.yaml is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UserError("config.yaml holds no settings.")
    return completed(content)


def as_read(value: Any) -> Any:
    """A value that was typed, as Hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(f"key={value}").value() if isinstance(value, str) else value
    except HydraException:
        return value


def settings_of(run: RunFolder, defaults: dict[str, Any]) -> dict[str, Any]:
    """What a run's settings are by name; those of a job that has never begun are its record's."""
    if not run.is_run:
        own, usual = run.read_job().settings, defaults["choices"]

        def told(key: str) -> bool:
            if key in usual:
                return key in ("selection", "feed") or (key in ("model", "objective", "sd") and own[key] != usual[key])
            return key == "seed" or ((distinguishes(key) or key in BESIDE) and as_read(own[key]) != value_at(defaults, key))

        return {key: as_read(value) for key, value in own.items() if value is not None and told(key)}
    config = glanced(run)
    choices = config["choices"]
    chosen = {group: choices[group] for group in ("selection", "feed")}
    chosen |= {group: choices[group] for group in ("model", "objective", "sd") if choices[group] != defaults["choices"][group]}
    beside = {key: value for key in BESIDE if (value := value_at(config, key)) != value_at(defaults, key)}
    return chosen | distinguishing(defaults, config) | beside | {"seed": config["seed"]}


def read(run: RunFolder, group: Path, defaults: dict[str, Any]) -> Listed:
    """A run, as far as its files can be read."""
    try:
        state, why = state_of(run)
        row = Listed(run, group, state, settings_of(run, defaults), why=why)
        if (result := run.finished()) is not None and state == "done":
            row.epochs, row.loss = str(result.epochs), result.val_loss
        elif run.metrics.is_file() and (curve := run.learning_curve()):
            most = glanced(run)["trainer"]["max_epochs"]
            row.epochs, row.loss = f"{curve[-1][0]} of {most}", min(loss for _, loss in curve)
        if state == "done" and run.evaluation().is_file():
            values = run.read_evaluation().values
            row.measures = tuple(values.get(name) for name in MEASURES)
    except (UserError, OSError, KeyError, TypeError, ValueError) as error:
        return Listed(run, group, "unreadable", why=str(error).partition("\n")[0])
    return row


def listed(folders: Iterable[Path]) -> list[Listed]:
    """The runs and the jobs of sweeps in folders and below them, each once.

    Raises:
        UserError: for a folder that isn't there.
    """
    defaults, found, seen = default_settings(), list[Listed](), set[Path]()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}.")
        files = list(below(folder))
        sweeps = {path.parent for path in files if path.name == INDEX}
        for path in sorted({path.parent for path in files if path.name in ("config.yaml", "job.json")}):
            if (real := path.resolve()) not in seen:
                seen.add(real)
                group = next((above for above in path.parents if above in sweeps), path.parent)
                found.append(read(RunFolder(path), group, defaults))
    return found


def best_first(rows: list[Listed]) -> list[Listed]:
    """The rows by their composed fidelity, of equal fidelity by their conditioning error; after them those that have that alone,
    then by their loss; what has none comes last.

    Losses of several selections or objectives, whose states they weigh differently, order nothing.
    """
    lost = [row.settings for row in rows if row.loss is not None]
    of = {frozenset((key, str(value)) for key, value in found.items() if key in LOSSES or key.startswith(OWN)) for found in lost}

    def worth(row: Listed) -> tuple[int, float, float]:
        fidelity, error = row.measures
        if fidelity is not None:
            return 0, -fidelity, inf if error is None else error
        if error is not None:
            return 1, error, 0.0
        return (2, row.loss, 0.0) if row.loss is not None and len(of) == 1 else (3, 0.0, 0.0)

    return sorted(rows, key=worth)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def shared(rows: list[Listed]) -> dict[str, Any]:
    """The settings, but for selection and feed, that several rows have in common."""
    known = [row.settings for row in rows if row.settings]
    if len(known) < 2:
        return {}
    same = {key: value for key, value in known[0].items() if all(key in other and other[key] == value for other in known)}
    return {key: value for key, value in same.items() if key not in ("selection", "feed")}


def cells(row: Listed, common: dict[str, Any]) -> list[str]:
    """A row's texts; of its settings, those that aren't common."""
    told = [
        str(value) if key in ("selection", "feed") else f"{key}={value}"
        for key, value in row.settings.items()
        if key not in common
    ]
    name = row.run.path.relative_to(row.group).as_posix()
    return [f"  {name}", row.state, ", ".join(told), row.epochs, *map(number, (row.loss, *row.measures))]


def table(rows: list[Listed]) -> str:
    """The rows as text, in groups: a sweep's jobs, or the runs of a folder. What a group shares and others don't heads it."""
    groups = {group: [row for row in rows if row.group == group] for group in dict.fromkeys(row.group for row in rows)}
    common = {group: shared(members) for group, members in groups.items()}
    everywhere = shared(rows)
    texts = {id(row): cells(row, common[row.group] | everywhere) for row in rows}
    used = [place for place in range(len(COLUMNS)) if place < 3 or any(text[place] for text in texts.values())]
    width = [max(len(COLUMNS[place]) + 2 * (place == 0), *(len(text[place]) for text in texts.values())) for place in used]

    def line(text: Iterable[str]) -> str:
        return "  ".join(f"{cell:<{size}}" for cell, size in zip(text, width, strict=True)).rstrip()

    lines = [line([f"  {COLUMNS[0]}", *(COLUMNS[place] for place in used[1:])])]
    for group, members in groups.items():
        kind = "job" if (group / INDEX).is_file() else "run"
        counts = ", ".join(f"{count} {state}" for state, count in Counter(row.state for row in members).items())
        all_have = ", ".join(f"{key}={value}" for key, value in common[group].items() if key not in everywhere)
        lines += ["", f"{group.as_posix()}: {len(members)} {kind}{'s' * (len(members) != 1)}, {counts}"]
        lines[-1] += f"; all with {all_have}" if all_have else ""
        for row in members:
            lines.append(line(texts[id(row)][place] for place in used))
            lines += [f"    {row.why}"] if row.why else []
    return "\n".join(lines)
