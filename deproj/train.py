"""Trains a deprojector: ``python -m deproj.train selection=eos_onward feed=recursive``.

A Hydra application; ``--help`` explains the settings. Here they are composed, checked against a run that is there
already, and handed to `deproj.training.run`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.process.errors import UserError, run_command, user_error_of
from deproj.process.files import alone, write_whole
from deproj.process.interruption import Interrupted, Interruption
from deproj.process.node import is_first_node
from deproj.process.progress import SILENT, progress_here
from deproj.process.system import print_any_script
from deproj.runs.commands import next_steps
from deproj.runs.folder import RunFolder
from deproj.runs.resume import settle
from deproj.settings.compose import compose_run
from deproj.settings.described import lines_of
from deproj.settings.help import asked_for_help, help_page
from deproj.settings.messages import all_keys, explain, readable, typed
from deproj.settings.mistakes import without_dashes
from deproj.settings.shipped import CONF, GROUPS
from deproj.training.dry_run import tell_plan
from deproj.training.log import LOG, begin
from deproj.training.made import Made, remove_if_unused
from deproj.training.run import run
from deproj.training.sweep import INDEX, SweepStart, note, refuse, tell
from deproj.training.sweep import remove_if_unused as remove_unused_sweep

__all__ = ["main"]

log = logging.getLogger("deproj.train")


def run_dir(resume: str | None) -> str:
    """The folder of the run that is resumed, or of a new one, which `Made` makes."""
    return str(resume_folder(Path(resume))) if resume else time.strftime("runs/%Y-%m-%d_%H-%M-%S")


def resume_folder(given: Path) -> Path:
    """The run of what is given: its folder, or one of its files such as ``checkpoints/last.ckpt``."""
    if os.path.isfile(given) or given.suffix == ".ckpt":  # unlike Path.is_file, also for names that are too long
        return given.parent.parent if given.parent.name == "checkpoints" else given.parent
    return given


OmegaConf.register_new_resolver("deproj.run_dir", run_dir, use_cache=True, replace=True)


# --- Hydra ----------------------------------------------------------------------------------------


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def job(cfg: DictConfig) -> float:
    """One Hydra job; returns the best held-out loss, which a sweeper may minimise: infinity where a sweep's job fails."""
    hydra_config = HydraConfig.get()
    folder, overrides = Path(hydra_config.runtime.output_dir), list(hydra_config.overrides.task)
    choices = {group: hydra_config.runtime.choices.get(group) for group in GROUPS}
    swept = hydra_config.mode == RunMode.MULTIRUN
    try:
        first = is_first_node(cfg)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None  # else Hydra adds a line of its own

    begin(first)
    noted = False  # whether the folder was found to be this job's

    def become(state: str, error: str = "") -> None:
        nonlocal noted
        noted = noted or first
        if swept and first:
            settings = {key: choices[key] for key in ("selection", "feed", "model")} | {"seed": cfg.get("seed")}
            settings |= dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
            note(Path(hydra_config.sweep.dir), folder, int(hydra_config.job.num), settings, state, error)

    interruption = Interruption()
    try:
        with interruption:
            composed = OmegaConf.to_container(cfg, resolve=True)
            assert isinstance(composed, dict)
            config = settle({**{str(k): v for k, v in composed.items()}, "choices": choices}, RunFolder(folder), overrides)
            if config["trainer"].get("nodes", 1) != 1:
                check_folder(hydra_config, swept)
            busy = f"another process is at work on {folder}; wait for it, or end it."
            with alone(RunFolder(folder).lock, refusal=busy, patience=1.0) if first else contextlib.nullcontext():
                become("started")
                # jobs of a sweep may share a terminal: each line says whose it is
                shown = progress_here(f"job {hydra_config.job.num}" if swept else "") if first else SILENT
                loss = run(config, folder, interruption, progress=shown)
            become("done")
            if first and not swept:
                print(next_steps(RunFolder(folder)))
            return loss
    except Interrupted as stopped:
        become("interrupted")
        if first:
            interruption.requeue(stopped.number)
        LOG.info("stopped by signal %d", stopped.number)
        if not swept and first:
            behind = RunFolder(folder).last_checkpoint.exists()
            how = f"To go on: python -m deproj.train {typed('resume', str(folder))}" if behind else "Nothing was trained yet."
            print(f"Stopped. {how}", file=sys.stderr)
        raise SystemExit(128 + stopped.number) from None
    except Exception as error:
        told = UserError(explain(error)) if isinstance(error, OmegaConfBaseException) else user_error_of(error, folder)
        if swept:
            log.error("%s failed: %s", folder, told or type(error).__name__, exc_info=None if told else error)
            said = str(told or f"{type(error).__name__}: {error}").partition("\n")[0]
            with contextlib.suppress(OSError):  # where the disk is full, which the end of the sweep tells
                if noted or not first or not refuse(Path(hydra_config.sweep.dir), folder, said):
                    become("failed", said)
            return float("inf")
        LOG.info("error: %s", told or f"{type(error).__name__}: {error}")
        if noted and RunFolder(folder).is_run:
            with contextlib.suppress(OSError):
                write_whole(RunFolder(folder).error, str(told or f"{type(error).__name__}: {error}"))
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


def sweep_at_hand() -> Path | None:
    """The folder of the sweep that this command is, once a job of it has begun."""
    sweep = SweepStart.folder
    return sweep if sweep is not None and (sweep / INDEX).exists() else None


def dry_run(arguments: list[str]) -> None:
    """Tells what a run would do; Hydra, which makes folders, isn't started.

    Raises:
        UserError: for a sweep, and for what would stop the run.
    """
    args = get_args_parser().parse_args(arguments)
    if args.multirun:
        raise UserError("--dry-run is of one run; leave -m out, with one value for each setting.")
    where = [f"hydra.searchpath=[{typed_path(args.config_dir)}]"] if args.config_dir else []
    config, folder = compose_run([*where, *args.overrides])
    experiment = str(config["choices"]["experiment"])
    file = CONF / "experiment" / f"{experiment}.yaml"
    if file.is_file() and any(line.key == "hydra.mode" for line in lines_of(file)):
        raise UserError(f"experiment={experiment} is a sweep; --dry-run is of one run, by its own settings.")
    if config["resume"]:
        folder = resume_folder(Path(config["resume"]))
    own = [each for each in args.overrides if not each.startswith("hydra.")]
    tell_plan(settle(config, RunFolder(folder or Path("runs")), own), folder)


def typed_path(folder: str) -> str:
    return f"'file://{Path(folder).absolute().as_posix()}'"


def no_flags(arguments: list[str]) -> str:
    """What is to be told of arguments that begin with dashes and aren't Hydra's; else nothing."""
    unread = get_args_parser().parse_known_args(arguments)[1]
    flags = [argument for argument in unread if argument.startswith("-")]
    return without_dashes(flags, arguments, all_keys()) if flags else ""


def in_order(arguments: list[str]) -> list[str]:
    """Arguments as Hydra takes them: its flag for a sweep before the settings, wherever it was typed."""
    return sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))


def no_folder(arguments: list[str]) -> str:
    """What is to be told of a folder of settings that isn't there, of which Hydra would only warn; else nothing."""
    folder = get_args_parser().parse_known_args(arguments)[0].config_dir
    return f"--config-dir: there is no folder {folder}." if folder and not os.path.isdir(folder) else ""


def nothing_named(arguments: list[str]) -> str:
    """What is to be told of a folder that is named as nothing, as by a variable that isn't set; else nothing."""
    for argument in arguments:
        if argument in ("resume=", "init_from=", "hydra.run.dir=", "hydra.sweep.dir="):
            return f"{argument} names nothing; name a folder, or leave it out."
    return ""


def main() -> int:
    sys.argv[1:] = in_order(list(map(readable, sys.argv[1:])))
    if asked_for_help(sys.argv[1:]):
        print_any_script()
        print(help_page(sys.argv[1:]))
        return 0
    arguments = [argument for argument in sys.argv[1:] if argument != "--dry-run"]
    if mistake := no_flags(arguments) or nothing_named(arguments) or no_folder(arguments):
        print(f"error: {mistake}", file=sys.stderr)
        return 1
    if "--dry-run" in sys.argv[1:]:
        return run_command(lambda: dry_run(arguments))
    # Hydra would print a message of its own and exit; so the exception comes here.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    Made.reset()
    SweepStart.folder, SweepStart.made = None, []  # of an earlier call in this process
    # A log that can't be written, as on a full disk, is no reason for tracebacks.
    logging.raiseExceptions, raised = False, logging.raiseExceptions
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
            # A job's own errors don't come here, so it is the launcher's: a process of a job was killed, for example.
            first = (str(error).strip().splitlines() or [""])[0]
            raise UserError(f"the launcher has ended the sweep ({type(error).__name__}: {first[:200]})") from error

    try:
        code = run_command(command)
    except SystemExit as stop:  # a run's or a job's own, or of SIGTERM
        code = int(stop.code or 0)
    finally:
        signal.signal(signal.SIGTERM, before)
        logging.raiseExceptions = raised
    if (sweep := sweep_at_hand()) is not None and SweepStart.first:
        done = [False]

        def told() -> None:
            done[0] = tell(sweep)

        failed = run_command(told, sweep)
        return code or failed or int(not done[0])
    if code and SweepStart.first:
        remove_unused_sweep()
    return code


if __name__ == "__main__":
    sys.exit(main())
