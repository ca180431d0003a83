"""The dashboard of Weights & Biases. Rank zero alone logs."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import wandb
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from deproj.process.errors import UserError
from deproj.process.files import write_whole
from deproj.process.system import quoted
from deproj.runs.folder import RunFolder
from deproj.runs.records import Evaluation
from deproj.training.dashboards import COLUMNS, Dashboard, Picture, evaluation_rows, from_one
from deproj.training.sweep import INDEX, varied_in

__all__ = ["WandbDashboard", "job_name"]

#: What a sweep's command sets that does not distinguish its jobs.
NO_CHOICE = ("resume", "render", "evaluate", "logger", "experiment", "data.cache", "trainer.progress", "trainer.accelerator")


#: Seconds to wait for the W&B server at the start, before going offline, and for the last data to be sent.
START, END = 30, 600


#: Settings of W&B under which it collects nothing by itself.
NO_DETAILS: dict[str, Any] = {
    **dict.fromkeys(("x_disable_meta", "x_disable_stats", "x_disable_machine_info", "disable_git", "disable_code"), True),
    **dict.fromkeys(("label_disable", "sagemaker_disable"), True),
    **dict.fromkeys(("save_code", "x_save_requirements"), False),
    "console": "off",
    "host": "",
}


class WandbDashboard(Logger, Dashboard):
    """A run of Weights & Biases, offline where there is no key or no server.

    Sent are the config, metrics, pictures, the evaluation and the model. W&B adds the versions of itself and of Python, the
    kind of operating system, and which of the libraries that it knows are imported.

    Args:
        config: the run's settings.
        run: its folder. In it, ``wandb-id`` names the W&B run that a resumed run goes on with, and ``wandb/`` holds its data.
        project: of W&B.
        details: whether W&B may also collect what it does by default: machine, its load, packages, git and code state, console.
    """

    def __init__(self, config: dict[str, Any], run: RunFolder, project: str, details: bool) -> None:
        super().__init__()
        with refusals_told():
            wandb.setup()  # reads the environment
        self.config, self.choices, self.folder, self.project = config, config["choices"], run.path, project
        self.details = details
        self.run: wandb.Run | None = None
        known = self.folder / "wandb-id"
        before = known.read_text(encoding="utf-8").strip() if known.exists() else ""
        self.id = before if re.fullmatch("[a-z0-9]{8}", before) else secrets.token_hex(4)

    @property
    def name(self) -> str:
        return self.project

    @property
    def comparable(self) -> str:
        """What losses can be compared with: those of one selection, or of one objective through the U-Net."""
        objective = self.choices.get("objective", "states")
        return str(self.choices["selection"] if objective == "states" else objective)

    @property
    def version(self) -> str:
        return self.id

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The W&B run, which begins when it is first asked for."""
        if self.run is None:
            with refusals_told():
                self.run = self.begin()
        return self.run

    def begin(self) -> wandb.Run:
        """Begins the W&B run, offline if need be, and prints where it is."""
        settings = wandb.Settings(reinit="create_new", silent=True, init_timeout=START)
        settings.finish_timeout, settings.finish_timeout_raises = END, True
        if not self.details:
            settings.update_from_dict(NO_DETAILS)
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # tracebacks, with their paths; no setting says so
            os.environ.setdefault("WANDB_DISABLE_WEAVE", "true")  # which traces calls of language models, or advises it
        begin = partial(
            wandb.init,
            id=self.id,
            resume="allow",
            project=self.project,
            group=None if (sweep := sweep_of(self.folder)) is None else sweep.name,
            name=job_name(self.config, RunFolder(self.folder))[:128],
            job_type="train",
            tags=[
                tag for name in ("selection", "feed", "model", "objective", "sd", "experiment") if (tag := self.choices.get(name))
            ],
            config=self.config,
            dir=self.folder,
        )
        why = why_offline()
        if not why:
            try:
                run = begin(settings=settings)
                print(f"W&B: {run.url or 'disabled'}")
            except wandb.Error as error:
                why = f"the server did not take it: {str(error).partition(chr(10))[0]}"
                wandb.teardown()  # its service holds on to the id
        if why:
            settings.mode = "offline"
            run = begin(settings=settings)
            print(f"W&B: offline ({why}); to send this run later: {self.sync('offline-run-*')}")
        write_whole(self.folder / "wandb-id", f"{self.id}\n")
        run.define_metric("trainer/global_step")
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        run.define_metric("val/loss", step_metric="trainer/global_step", step_sync=True, summary="min")
        return run

    @rank_zero_only
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None:
        pass  # the config holds them

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        numbers = from_one(metrics)
        for name in ("train/loss", "val/loss"):  # once more in a panel that only comparable losses share
            if name in numbers:
                numbers[f"loss_of_{self.comparable}/{name.partition('/')[0]}"] = numbers[name]
        self.experiment.log(numbers | {"trainer/global_step": step})

    @rank_zero_only
    def pictures(self, pictures: Mapping[str, Picture], epoch: int, step: int) -> None:
        images = {name: wandb.Image(picture, caption=caption) for name, (picture, caption) in pictures.items()}
        self.experiment.log(images | {"trainer/global_step": step})

    @rank_zero_only
    def evaluation(self, evaluation: Evaluation, step: int) -> None:
        setting = f"{self.choices['selection']}, {self.choices['feed']}"  # tables of several runs are shown as one
        rows = [[setting, self.config["seed"], *row] for row in evaluation_rows(evaluation)]
        with self.staging():
            self.experiment.log(
                {"evaluation": wandb.Table(columns=["setting", "seed", *COLUMNS], data=rows), "trainer/global_step": step}
            )

    @rank_zero_only
    def summary(self, told: Mapping[str, Any], measures: Mapping[str, float]) -> None:
        self.experiment.summary.update(dict(told))

    @rank_zero_only
    def model(self, folder: Path) -> None:
        with self.staging():
            artifact = wandb.Artifact(f"deprojector-{self.id}", "model", metadata=self.choices)
            for path in sorted(folder.iterdir()):
                artifact.add_file(str(path), skip_cache=True)
            self.experiment.log_artifact(artifact)

    @rank_zero_only
    def finish(self, code: int) -> None:
        if self.run is None:
            return
        try:
            self.run.finish(exit_code=code)
        except TimeoutError:
            print(f"W&B: the server took too long; to send what it lacks: {self.sync('run-*')}")
        self.run = None

    def sync(self, runs: str) -> str:
        """The command that sends runs, by a pattern of their folders' names."""
        return f"wandb sync {quoted(str(self.folder))}/wandb/{runs}"

    @contextmanager
    def staging(self) -> Iterator[None]:
        """Within it, files wait in the run's folder for being sent, not in the user's home."""
        name = "WANDB_DATA_DIR"
        if name in os.environ:
            yield
            return
        os.environ[name] = str((self.folder / "wandb").resolve())
        try:
            yield
        finally:
            del os.environ[name]


@contextmanager
def refusals_told() -> Iterator[None]:
    """Turns what W&B raises for settings in the environment into the user's error.

    Raises:
        UserError: with the variable, where it can be told.
    """
    try:
        yield
    except UserError:
        raise
    except (ValueError, wandb.Error) as error:  # pydantic's and Unicode's errors are ValueErrors
        details: Any = error.errors()[0] if hasattr(error, "errors") else {}
        why = str(details.get("msg") or str(error).partition("\n")[0]).rstrip(".")
        names = [name for name, value in os.environ.items() if name.startswith("WANDB_") and "KEY" not in name]
        given = details.get("input")
        meant = [name for name in names if given is not None and str(given).strip("[]'") == os.environ[name]] or names
        which = " or ".join(sorted(meant)) or "a setting in ~/.config/wandb"
        raise UserError(f"W&B does not take {which}: {why}. Correct or unset it, or set logger=csv.") from None


def why_offline() -> str:
    """Why the W&B server need not be asked, or nothing."""
    mode = wandb.setup().settings.mode
    if mode in ("offline", "dryrun"):
        return f"WANDB_MODE={mode}"
    try:
        return "" if mode == "disabled" or wandb.login(prompt=False, verify=False) else "no key"
    except wandb.Error as error:  # of a key that is none
        return str(error).partition("\n")[0]


def sweep_of(folder: Path) -> Path | None:
    """The folder of the sweep that a run belongs to."""
    return next((parent for parent in folder.resolve().parents if (parent / INDEX).exists()), None)


def job_name(config: dict[str, Any], run: RunFolder) -> str:
    """What distinguishes a run from others: its selection, feed, seed, and what else its sweep varies."""
    choices = config["choices"]
    set_by_sweep = run.read_job().settings if run.job.exists() else {}
    sweep = sweep_of(run.path)
    if sweep is not None and (varied := varied_in(sweep)) is not None:
        set_by_sweep = {key: value for key, value in set_by_sweep.items() if key in varied}
    named = ("selection", "feed", "model", "objective", "seed")
    others = [
        f"{key.rpartition('.')[2]}={value}"
        for key, value in set_by_sweep.items()
        if key not in named and not key.startswith(NO_CHOICE)
    ]
    usual = {"model": "lstm", "objective": "states"}
    unusual = [choices[group] for group, choice in usual.items() if choices.get(group, choice) != choice]
    return ", ".join([choices["selection"], choices["feed"], *unusual, f"seed {config['seed']}", *others])
