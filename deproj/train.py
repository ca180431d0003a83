"""Trains a deprojector: ``python -m deproj.train selection=eos_onward feed=recursive``.

A Hydra application; ``--help`` lists the settings. Here they are composed, checked against a run that is there
already, and handed to `deproj.training.run`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import os
import shutil
import signal
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

from deproj.process.errors import UserError, run_command, user_error_of
from deproj.process.files import alone
from deproj.process.interruption import Interrupted, Interruption
from deproj.process.ranks import node_number
from deproj.settings.compose import differences, read_config
from deproj.settings.messages import explain, typed, unknown
from deproj.settings.nodes import foreign_classes
from deproj.settings.shipped import CONF, GROUPS, SHIPPED
from deproj.training.run import run
from deproj.training.sweep import INDEX, SweepStart, note, refuse, tell

__all__ = ["main"]

log = logging.getLogger("deproj.train")

TOP_KEYS = (*GROUPS, "choices", "seed", "resume", "init_from", "precision", "render", "evaluate", "data", "optimizer")
#: What may differ when a run goes on: how long and where it runs and how it is shown, not what is learnt.
MAY_CHANGE = (
    *("resume", "render", "evaluate", "logger", "choices.logger", "choices.experiment", "choices.trainer"),
    *("data.cache", "data.keep", "trainer.max_epochs", "trainer.accelerator", "trainer.progress"),
    *("trainer.devices", "trainer.nodes", "trainer.cuda_graphs"),
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
            if key == "trainer":  # the group says where; how long stays as it is
                chosen[key] |= {name: composed[key][name] for name in ("devices", "nodes")}
            elif key in GROUPS:
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
def job(cfg: DictConfig) -> float:
    """One Hydra job; gives the best held-out loss, which a sweeper may minimise: infinity where a sweep's job fails."""
    hydra_config = HydraConfig.get()
    folder, overrides = Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task)
    choices = {group: hydra_config.runtime.choices.get(group) for group in GROUPS}
    swept, first = hydra_config.mode == RunMode.MULTIRUN, node_number() == 0

    noted = False  # whether the folder was found to be this job's

    def become(state: str, error: str = "") -> None:
        nonlocal noted
        if swept and first:
            noted = True
            settings = {key: choices[key] for key in ("selection", "feed", "model")} | {"seed": cfg.get("seed")}
            settings |= dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
            note(Path(hydra_config.sweep.dir), folder, int(hydra_config.job.num), settings, state, error)

    interruption = Interruption()
    try:
        with interruption:
            composed = OmegaConf.to_container(cfg, resolve=True)
            assert isinstance(composed, dict)
            config = settle({**{str(k): v for k, v in composed.items()}, "choices": choices}, folder, overrides)
            if config["trainer"].get("nodes", 1) != 1:
                check_folder(hydra_config, swept)
            busy = f"another process is at work on {folder}; wait for it, or end it."
            with alone(folder / ".lock", refusal=busy) if first else contextlib.nullcontext():
                become("started")
                loss = float(run(config, folder, interruption)["val_loss"])
            become("done")
            return loss
    except Interrupted as stopped:
        become("interrupted")
        if first:
            interruption.requeue(stopped.number)
        if not swept and first:
            behind = (folder / "checkpoints" / "last.ckpt").exists()
            how = f"To go on: python -m deproj.train {typed('resume', str(folder))}" if behind else "Nothing was trained yet."
            print(f"Stopped. {how}", file=sys.stderr)
        raise SystemExit(128 + stopped.number) from None
    except Exception as error:
        told = UserError(explain(error)) if isinstance(error, OmegaConfBaseException) else user_error_of(error, folder)
        if swept:
            log.error("%s failed: %s", folder, told or type(error).__name__, exc_info=None if told else error)
            said = str(told or f"{type(error).__name__}: {error}").partition("\n")[0]
            if noted or not first or not refuse(Path(hydra_config.sweep.dir), folder, said):
                become("failed", said)
            return float("inf")
        if first:
            remove_if_unused(folder)
        if told is not None:
            print(f"error: {told}", file=sys.stderr)
            raise SystemExit(1) from None  # else Hydra adds a line of its own
        raise


def check_folder(hydra_config: Any, swept: bool) -> None:
    """Refuses a run on several nodes whose folder these would not agree on.

    Raises:
        UserError: where the folder would be named by the time, or a sweep's jobs are not started by SLURM.
    """
    if swept and "submitit" not in str(hydra_config.launcher.get("_target_")):
        raise UserError("a sweep on several nodes is SLURM's: hydra/launcher=slurm hydra.launcher.nodes=....")
    named = ("hydra.run.dir=", "resume=")
    if not swept and not any(
        str(each).startswith(named) for each in (*hydra_config.overrides.hydra, *hydra_config.overrides.task)
    ):
        raise UserError("with trainer.nodes above 1 name the run's folder, hydra.run.dir=, on a disk that all nodes share.")


def remove_if_unused(folder: Path) -> None:
    """Takes away a folder in which nothing has begun, with what Hydra's log left there; not another process's."""
    if not folder.is_dir() or not {path.name for path in folder.iterdir()} <= {"train.log", ".lock"}:
        return
    with contextlib.suppress(UserError, OSError):
        with alone(folder / ".lock", refusal="another process has begun"):
            shutil.rmtree(folder)
        folder.parent.rmdir()  # unless there are other runs


def sweep_at_hand() -> Path | None:
    """The folder of the sweep that this command is, once a job of it has begun."""
    sweep = SweepStart.folder
    return sweep if sweep is not None and (sweep / INDEX).exists() else None


def main() -> int:
    # Hydra would print a message of its own and exit; so the exception comes here.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    SweepStart.folder = None  # of an earlier call in this process
    # A run has handlers of its own; this is for the command of a sweep while it waits for its jobs' processes.
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    def command() -> None:
        try:
            job()
        except (HydraException, OmegaConfBaseException) as error:
            raise UserError(explain(error)) from None
        except Exception as error:
            if 'Could not detect "srun"' in str(error):  # submitit's
                raise UserError("there is no SLURM here (no srun); hydra/launcher=processes is the same without it.") from None
            if sweep_at_hand() is None:
                raise
            # A job's own errors don't come here, so it is the launcher's: a process of a job was killed, say.
            first = (str(error).strip().splitlines() or [""])[0]
            raise UserError(f"the launcher has ended the sweep ({type(error).__name__}: {first[:200]})") from error

    try:
        code = run_command(command)
    except SystemExit as stop:  # a run's or a job's own, or of SIGTERM
        code = int(stop.code or 0)
    finally:
        signal.signal(signal.SIGTERM, before)
    if (sweep := sweep_at_hand()) is not None and node_number() == 0 and not tell(sweep):
        return code or 1
    return code


if __name__ == "__main__":
    sys.exit(main())
