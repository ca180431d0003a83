"""The commands that make or measure a run again, as far as its settings name it."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from deproj.process.errors import UserError
from deproj.process.system import activation, command_line, quoted
from deproj.runs.folder import RunFolder
from deproj.settings.compose import compose_config, differences
from deproj.settings.messages import typed
from deproj.settings.nodes import foreign_classes
from deproj.settings.shipped import GROUPS

__all__ = ["evaluate_again", "evaluate_baseline", "evaluate_model", "next_steps", "train_again"]

#: What is no part of a run's settings: where it ran, and how it was shown.
PASSING = ("choices", "resume", "logger", "data.cache", "data.keep", "trainer.progress", "trainer.devices", "trainer.nodes")
DEFAULTS = ("model=lstm", "objective=states", "sd=pixel", "trainer=single")


def train_again(config: dict[str, Any]) -> str:
    """The command that trains with a run's settings."""
    choices = config["choices"]
    groups = [f"{group}={choices[group]}" for group in GROUPS if group in choices and group not in ("experiment", "logger")]
    own: list[str] = []
    try:
        defaults = dict(composed(tuple(groups)))
    except UserError:  # a selection, feed or model of the user's own
        own = [choice for choice in groups if not ships(choice)]
        defaults = dict(composed(tuple(choice for choice in groups if choice not in own)))
        for group in (choice.partition("=")[0] for choice in own):
            defaults[group] = {"_target_": config[group].get("_target_")}  # what else it has is said
    changed = {k: new for k, (_, new) in differences(defaults, config).items() if not k.startswith(PASSING)}
    said = [typed(key, new) for key, new in changed.items()]
    where = ["--config-dir=YOURS"] if own else []
    return " ".join(["python -m deproj.train", *where, *(choice for choice in groups if choice not in DEFAULTS), *said])


@lru_cache(maxsize=128)
def composed(groups: tuple[str, ...]) -> dict[str, Any]:
    """The settings of choices, to be read only: runs of a report share them, and composing takes a third of a second."""
    return compose_config(list(groups))


def ships(choice: str) -> bool:
    """Whether a choice such as ``selection=all`` is among the settings that come with the package."""
    try:
        composed((choice,))
    except UserError:
        return False
    return True


def next_steps(run: RunFolder) -> str:
    """What to type when a run has ended: commands that draw from it, measure it and compare it."""
    here = RunFolder(run.path.relative_to(Path.cwd())) if run.path.is_relative_to(Path.cwd()) else run
    folder = here.path.as_posix()
    draw, report = ["deproj.generate", folder, "cat, maid"], ["deproj.report", folder]
    lines = [command_line(["python", "-m", *draw]), evaluate_again(here), command_line(["python", "-m", *report])]
    if first := activation():
        lines.insert(0, first)
    return "\n  ".join(["To draw from it, measure it on more prompts, and see it on a page:", *lines])


def evaluate_again(run: RunFolder) -> str:
    """The command that measures a run, with its own classes trusted."""
    names: list[str] = []
    with suppress(UserError):
        names = foreign_classes(run.read_config(), ("selection",))
    return " ".join(["python -m deproj.evaluate", quoted(run.path.as_posix()), *(f"--trust {name}" for name in names)])


def evaluate_model(model: str, config: dict[str, Any], count: int, seed: int) -> str:
    """The command that measures a model without a run, by the settings that it was measured by."""
    words, sd = ["python", "-m", "deproj.evaluate", model, "--count", str(count), "--seed", str(seed)], config["sd"]
    if sd["name"] != "pixel":
        words += ["--sd", str(sd["path"]), "--captions", str(config["data"]["prompts"])]
        words += [] if sd["clip"] is None else ["--clip", str(sd["clip"])]
    return command_line(words)


def evaluate_baseline(run: RunFolder, baseline: str, selection: str, count: int, seed: int) -> str:
    """The command that fits and measures a baseline."""
    return (
        f"python -m deproj.evaluate --baseline {baseline} --selection {selection} "
        f"--count {count} --seed {seed} --out {quoted(run.path.as_posix())}"
    )
