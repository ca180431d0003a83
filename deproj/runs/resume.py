"""The settings that a run goes by: those of the command line, or, where it goes on, its own; and why it may not go on.

That captions have changed since is refused in `deproj.training.same_captions`, a damaged checkpoint in
`deproj.training.checkpoints`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from deproj.process.errors import UserError
from deproj.runs.folder import RunFolder
from deproj.settings.compose import differences
from deproj.settings.messages import all_keys
from deproj.settings.mistakes import unknown
from deproj.settings.nodes import foreign_classes
from deproj.settings.shipped import GROUPS, OBJECTS

__all__ = ["settle"]

NODES = ("selection", "feed", "model", "objective", "sd", "logger", "data", "optimizer", "trainer", "choices")
TOP_KEYS = (*GROUPS, "choices", "seed", "resume", "init_from", "precision", "render", "evaluate", "data", "optimizer")
#: What may differ when a run goes on: how long and where it runs and how it is shown, not what is learnt.
MAY_CHANGE = (
    *("resume", "render", "evaluate", "logger", "choices.logger", "choices.experiment", "choices.trainer"),
    *("data.cache", "data.keep", "trainer.max_epochs", "trainer.accelerator", "trainer.progress"),
    *("trainer.devices", "trainer.nodes", "trainer.cuda_graphs"),
)


def settle(composed: dict[str, Any], run: RunFolder, overrides: list[str]) -> dict[str, Any]:
    """The settings that a run goes by.

    Args:
        composed: from the command line.
        run: its folder, which may hold a run already.
        overrides: as given on the command line; with ``resume`` they may change what `MAY_CHANGE` lists.

    Raises:
        UserError: for unknown keys, and where the folder holds a run with other settings.
    """
    for key in composed:
        if key not in TOP_KEYS:
            raise UserError(unknown(key, all_keys()))
    check_shape(composed)
    if not run.is_run:
        if composed["resume"]:
            raise UserError(f"{run.path} holds no run to resume: it has no config.yaml.")
        return composed
    stored = run.read_config()
    check_shape(stored)
    if composed["resume"] and composed["choices"]["experiment"]:
        raise UserError("a resumed run keeps its own settings; leave experiment= out.")
    chosen = overridden(stored, composed, overrides) if composed["resume"] else composed
    check_same(stored, chosen, run)
    check_classes(chosen, composed, run)
    return chosen


def check_shape(config: dict[str, Any]) -> None:
    """Refuses settings in which a group or the seed is not what it must be."""
    for group in NODES:
        if not isinstance(config.get(group), dict):
            raise UserError(f"{group} must be chosen; got {config.get(group)!r}.")
    for name, seed in (("seed", config.get("seed")), ("data.seed", config["data"].get("seed"))):
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise UserError(f"{name} is a whole number from 0 to 2³²-1; got {seed!r}.")


def overridden(stored: dict[str, Any], composed: dict[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A run's own settings with those of a command line in their place."""
    chosen: dict[str, Any] = json.loads(json.dumps(stored))
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        for path in paths_of(key):
            put(chosen, path, get(composed, path))
    return chosen


def paths_of(key: str) -> Iterator[tuple[str, ...]]:
    """Where an override of this key puts values; a group's choice is noted beside what it holds."""
    if key not in GROUPS:
        yield tuple(key.split("."))
        return
    yield ("choices", key)
    if key == "trainer":  # the group says where; how long stays as it is
        yield from (("trainer", "devices"), ("trainer", "nodes"))
    else:
        yield (key,)


def get(config: dict[str, Any], path: tuple[str, ...]) -> Any:
    for part in path[:-1]:
        config = config.get(part, {})
    return config.get(path[-1])


def put(config: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        config = config.setdefault(part, {})
    config[path[-1]] = value


def check_same(stored: dict[str, Any], chosen: dict[str, Any], run: RunFolder) -> None:
    """Refuses to go on with a run under settings that change what it learns."""
    before, now = (config["trainer"].get("max_epochs") for config in (stored, chosen))
    if before != now and stored["optimizer"].get("schedule") == "cosine":
        raise UserError(
            f"{run.path} lets its learning rate fall to 0 at the end of epoch {before}, so trainer.max_epochs={now} would be "
            f"another run; leave it, or start a new one with init_from={run.path.as_posix()}."
        )
    changed = {k: v for k, v in differences(stored, chosen).items() if not k.startswith(MAY_CHANGE)}
    if not changed:
        return
    key = min(changed, key=lambda name: not name.startswith("choices."))  # selection=all says more than its class
    old, new = changed[key]
    key = key.removeprefix("choices.")
    raise UserError(
        f"{run.path} holds a run with {key}={old}, not {new}; keep its settings, or start a new run in another folder."
    )


def check_classes(chosen: dict[str, Any], composed: dict[str, Any], run: RunFolder) -> None:
    """Refuses classes of a run's config that are none of ours and that the command line doesn't name."""
    for group in OBJECTS:
        foreign = foreign_classes(chosen, (group,))
        if foreign and chosen[group] != composed[group]:
            raise UserError(
                f"{run.config} wants the class {foreign[0]!r} for {group}, which is none of ours; if you trust it, "
                f"name it on the command line too: {group}={chosen['choices'][group]}."
            )
