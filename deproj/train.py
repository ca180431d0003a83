"""Trains a deprojector: ``python -m deproj.train selection=eos_onward feed=recursive``.

A Hydra application; ``--help`` lists the settings. Here they are composed, checked against a run that is there
already, and handed to `deproj.run`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.errors import UserError, run_command, user_error_of
from deproj.run import run
from deproj.settings import CONF, GROUPS, SHIPPED, differences, explain, foreign_classes, read_config, unknown

__all__ = ["main"]

log = logging.getLogger("deproj.train")

TOP_KEYS = (*GROUPS, "choices", "seed", "resume", "init_from", "precision", "render", "evaluate", "data", "optimizer", "trainer")
#: What may differ when a run goes on: how long and where it runs and how it is shown, not what is learnt.
MAY_CHANGE = (
    *("resume", "render", "evaluate", "logger", "choices.logger", "choices.experiment", "data.cache"),
    *("trainer.max_epochs", "trainer.accelerator", "trainer.progress"),
)


def run_dir(resume: str | None) -> str:
    """A new run's folder, or the one that is resumed."""
    if resume:
        return str(resume)
    base = time.strftime("runs/%Y-%m-%d_%H-%M-%S")
    return next(name for k in itertools.count(1) if not Path(name := base if k == 1 else f"{base}_{k}").exists())


OmegaConf.register_new_resolver("deproj.run_dir", run_dir, use_cache=True, replace=True)


# --- The settings of a run -----------------------------------------------------------------------


def settle(composed: dict[str, Any], folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The settings that a run goes by: those composed, or, on resuming, the run's own.

    Args:
        composed: from the command line.
        folder: the run's, which may hold a run already.
        overrides: as given on the command line; with ``resume`` they may change what `MAY_CHANGE` says.

    Raises:
        UserError: for unknown keys, and where the folder holds a run with other settings.
    """
    for key in composed:
        if key not in TOP_KEYS:
            raise UserError(unknown(key, TOP_KEYS))
    check_shape(composed)
    known = folder / "config.yaml"
    if not known.exists():
        if composed["resume"]:
            raise UserError(f"{folder} holds no run to resume: it has no config.yaml.")
        return composed
    stored = read_config(known)
    chosen = composed
    check_shape(stored)
    if composed["resume"]:
        if composed["choices"]["experiment"]:
            raise UserError("a resumed run keeps its own settings; leave experiment= out.")
        chosen = json.loads(json.dumps(stored))
        for override in overrides:
            key = override.partition("=")[0].lstrip("+~")
            place, source, path = chosen, composed, (["choices", key] if key in GROUPS else key.split("."))
            for part in path[:-1]:
                place, source = place.setdefault(part, {}), source.get(part, {})
            place[path[-1]] = source.get(path[-1])
            if key in GROUPS:
                chosen[key] = composed[key]
    changed = {k: v for k, v in differences(stored, chosen).items() if not k.startswith(MAY_CHANGE)}
    if changed:
        key = min(changed, key=lambda name: not name.startswith("choices."))  # selection=all says more than its class
        old, new = changed[key]
        key = key.removeprefix("choices.")
        raise UserError(
            f"{folder} holds a run with {key}={old}, not {new}; keep its settings, or start a new run in another folder."
        )
    for group in SHIPPED:
        foreign = foreign_classes(chosen, (group,))
        if foreign and chosen[group] != composed[group]:
            raise UserError(
                f"{known} wants the class {foreign[0]!r} for {group}, which is none of ours; if you trust it, "
                f"name it on the command line too: {group}={chosen['choices'][group]}."
            )
    return chosen


def check_shape(config: dict[str, Any]) -> None:
    """Refuses settings in which a group or the seed is not what it must be."""
    for group in ("selection", "feed", "model", "sd", "logger", "data", "optimizer", "trainer", "choices"):
        if not isinstance(config.get(group), dict):
            raise UserError(f"{group} must be chosen; got {config.get(group)!r}.")
    for name, seed in (("seed", config.get("seed")), ("data.seed", config["data"].get("seed"))):
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise UserError(f"{name} is a whole number from 0 to 2³²-1; got {seed!r}.")


# --- Hydra ----------------------------------------------------------------------------------------


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(cfg: DictConfig) -> float | None:
    """One Hydra job; gives the best held-out loss, which a sweeper may minimise."""
    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    try:
        composed = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(composed, dict)
        composed["choices"] = {group: hydra_config.runtime.choices.get(group) for group in GROUPS}
        config = settle({str(k): v for k, v in composed.items()}, folder, list(hydra_config.overrides.task))
        return float(run(config, folder)["val_loss"])
    except Exception as error:
        remove_if_unused(folder)
        told = UserError(explain(error)) if isinstance(error, OmegaConfBaseException) else user_error_of(error, folder)
        if hydra_config.mode == RunMode.RUN and told is not None:
            print(f"error: {told}", file=sys.stderr)
            raise SystemExit(1) from None  # else Hydra adds a line of its own
        if hydra_config.mode == RunMode.MULTIRUN:  # Hydra tells of the first failure only, and at the end
            log.error("%s failed: %s", folder, told or type(error).__name__, exc_info=None if told else error)
        if told is not None:
            raise told from None
        raise


def remove_if_unused(folder: Path) -> None:
    """Takes away a folder in which nothing has begun, with what Hydra's log left there."""
    if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"train.log"}:
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # not empty
            folder.parent.rmdir()


def main() -> int:
    # Hydra would print a message of its own and exit; so the exception comes here.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")

    def command() -> None:
        try:
            job()
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error)) from None

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
