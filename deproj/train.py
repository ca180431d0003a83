"""Trains a deprojector: ``python -m deproj.train selection=eos_onward feed=recursive``.

A Hydra application; ``--help`` lists the settings. A run's folder holds ``config.yaml`` (resolved), ``metrics.csv``,
``sheets/``, ``checkpoints/`` (best and last), ``deprojector/`` and, when it is done, ``result.json``. The heavy
libraries are imported where they are used, so that a mistake in the settings is told at once.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.errors import UserError, run_command, user_error_of
from deproj.settings import CONF, differences, explain, read_config, settings, unknown

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from deproj.encoder import TextEncoder
    from deproj.model import Deprojector

__all__ = ["main", "run"]

log = logging.getLogger("deproj.train")

GROUPS = ("selection", "feed", "model", "sd", "logger", "experiment")
TOP_KEYS = (*GROUPS, "choices", "seed", "resume", "init_from", "render", "data", "optimizer", "trainer")
#: What may differ when a run goes on: how long and where it runs and how it is shown, not what is learnt.
MAY_CHANGE = (
    *("resume", "render", "logger", "choices.logger", "choices.experiment", "data.cache"),
    *("trainer.max_epochs", "trainer.accelerator", "trainer.progress"),
)
#: The classes that a config read back from a run may build. Others must be named on the command line again.
SHIPPED = {
    "selection": {f"deproj.selection.{name}" for name in ("AllTokens", "WordsEos", "WordsEosReversed", "EosOnward")},
    "feed": {"deproj.feed.Batch", "deproj.feed.Recursive"},
    "model": {"deproj.model.LSTMDeprojector.for_encoder"},
}


def run_dir(resume: str | None) -> str:
    """A new run's folder, or the one that is resumed."""
    if resume:
        return str(resume)
    base = time.strftime("runs/%Y-%m-%d_%H-%M-%S")
    return next(name for k in itertools.count(1) if not Path(name := base if k == 1 else f"{base}_{k}").exists())


OmegaConf.register_new_resolver("deproj.run_dir", run_dir, use_cache=True, replace=True)


@dataclass(frozen=True)
class TrainerSettings:
    """The settings under ``trainer``.

    Attributes:
        patience: epochs that the held-out free-running loss may not fall before training stops.
        accelerator: Lightning's: auto, cpu, gpu.
        gradient_clip_val: largest norm of the gradient, or None.
        progress: whether to show a progress bar.
    """

    max_epochs: int
    patience: int
    accelerator: str
    gradient_clip_val: float | None
    progress: bool

    def __post_init__(self) -> None:
        if self.max_epochs < 1 or self.patience < 1:
            raise UserError(f"trainer.max_epochs and trainer.patience are at least 1; got {self.max_epochs}, {self.patience}.")
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            raise UserError(f"trainer.gradient_clip_val is above 0, or null for none; got {self.gradient_clip_val}.")
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise UserError(f"trainer.accelerator is auto, cpu or gpu; got {self.accelerator!r}.")


@dataclass(frozen=True)
class OptimizerSettings:
    """The settings under ``optimizer``."""

    learning_rate: float


@dataclass(frozen=True)
class LoggerSettings:
    """The settings under ``logger``: csv, wandb or tensorboard, and the W&B project."""

    kind: str
    project: str = "deproj"

    def __post_init__(self) -> None:
        if self.kind not in ("csv", "wandb", "tensorboard"):
            raise UserError(f"logger.kind is csv, wandb or tensorboard; got {self.kind!r}.")


def render_every(value: Any) -> int:
    """Epochs between sheets, 0 for none. YAML's ``off`` is False, the command line's is a string."""
    if value is True or value == "on":
        return 1
    if value is False or value == "off":
        return 0
    if isinstance(value, int) and value >= 1:
        return value
    raise UserError(f"render is off, on, or a number of epochs; got {value!r}.")


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
    for group, classes in SHIPPED.items():
        foreign = set(targets(chosen[group])) - classes
        if foreign and chosen[group] != composed[group]:
            raise UserError(
                f"{known} wants the class {foreign.pop()!r} for {group}, which is none of ours; if you trust it, "
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


def targets(node: Any) -> Iterator[str]:
    """Every class that a node would build, however deep."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


def build(node: dict[str, Any], kind: type, name: str) -> Any:
    """The object that a config group describes."""
    from hydra.utils import instantiate

    try:
        made = instantiate(node, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{name} cannot be built: {' '.join(str(cause or error).split())[:300]}") from None
    if not isinstance(made, kind):
        raise UserError(f"{name} must be a {kind.__name__}; {node.get('_target_')} gives a {type(made).__name__}.")
    return made


# --- One run --------------------------------------------------------------------------------------


def run(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains, draws and exports one deprojector: the one place where settings become objects.

    Args:
        config: resolved settings, as in ``config.yaml``.
        folder: of the run; an interrupted run in it goes on.

    Returns:
        What ``result.json`` holds: state, val_loss (best, free-running), epochs, seconds.
    """
    trainer_settings = settings(TrainerSettings, config["trainer"], "trainer")
    optimizer = settings(OptimizerSettings, config["optimizer"], "optimizer")
    logger = settings(LoggerSettings, config["logger"], "logger")
    every = render_every(config["render"])
    if done := finished(folder, trainer_settings.max_epochs):
        print(f"{folder} is done (held-out loss {done['val_loss']:.4f}); nothing to do.")
        return done
    start = time.monotonic()

    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import EarlyStopping, TQDMProgressBar

    from deproj.callbacks import BenchmarkSheet, RunCheckpoint
    from deproj.data import DataSettings, SamplesModule
    from deproj.encoder import TextEncoder
    from deproj.feed import FeedMode
    from deproj.module import DeprojectorModule
    from deproj.prompts import open_prompts
    from deproj.render import Renderer, SdSettings
    from deproj.selection import TokenSelection

    quiet_libraries()
    sd = settings(SdSettings, config["sd"], "sd")
    data_settings = settings(DataSettings, {"prompts": "", **config["data"]}, "data")
    selection = build(config["selection"], TokenSelection, "selection")
    feed = build(config["feed"], FeedMode, "feed")
    pl.seed_everything(int(config["seed"]), verbose=False)
    cuda = trainer_settings.accelerator != "cpu" and torch.cuda.is_available()
    if trainer_settings.accelerator == "gpu" and not cuda:
        raise UserError("trainer.accelerator=gpu, but there is no CUDA here; set trainer.accelerator=cpu or auto.")
    device = "cuda" if cuda else "cpu"

    if not data_settings.prompts:
        raise UserError(
            f"sd={sd.name} has no prompts of its own; name yours: data.prompts=captions.txt, or data.prompts=grammar."
        )
    source = open_prompts(data_settings.prompts, data_settings.column)
    encoder = TextEncoder.from_pretrained(sd.path, sd.clip, device)
    model: Deprojector = build(config["model"], partial, "model")(encoder)
    last = folder / "checkpoints" / "last.ckpt"
    if config["init_from"] and not last.exists():
        start_from(model, Path(config["init_from"]), encoder, config)
    model.provenance |= {
        "selection": config["selection"] | {"name": config["choices"]["selection"]},
        "feed": config["feed"] | {"name": config["choices"]["feed"]},
        "init_from": config["init_from"],
    }
    module = DeprojectorModule(model, selection, feed, optimizer.learning_rate)
    data = SamplesModule(data_settings, source, encoder, int(config["seed"]))
    data.setup()

    checkpoint = RunCheckpoint(
        str(folder / "checkpoints"), "best", monitor="val/loss", save_last=True, enable_version_counter=False
    )
    benchmark: BenchmarkSheet | None = None
    callbacks: list[pl.Callback] = [EarlyStopping("val/loss", patience=trainer_settings.patience)]
    if trainer_settings.progress:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    if every and not cuda and not sd.cpu:
        print(f"Drawing nothing: there is no CUDA here, and sd={sd.name} is too slow on a CPU (sd.cpu=true draws all the same).")
    elif every:
        label = f"{config['choices']['selection']}, {config['choices']['feed']}"
        renderer = Renderer(sd, encoder.empty.states[0], device)
        benchmark = BenchmarkSheet(encoder, renderer, folder, label, every)
        callbacks.append(benchmark)
    callbacks.append(checkpoint)

    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=trainer_settings.max_epochs,
        accelerator="gpu" if cuda else "cpu",
        devices=1,
        logger=make_loggers(logger, config, folder, steps_done(last)),
        callbacks=callbacks,
        gradient_clip_val=trainer_settings.gradient_clip_val,
        enable_progress_bar=trainer_settings.progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, len(data.train_dataloader())),
    )
    code = 1
    try:
        trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None)
        best = torch.load(folder / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        model.save_pretrained(folder / "deprojector")
        if benchmark is not None:
            benchmark.draw(module, folder / "sheets" / "best.png")
        assert checkpoint.best_model_score is not None
        result = {
            "state": "done",
            "val_loss": float(checkpoint.best_model_score),
            "epochs": trainer.current_epoch,
            "stopped_early": trainer.current_epoch < trainer_settings.max_epochs,
            "seconds": round(time.monotonic() - start, 1),
        }
        write_whole(folder / "result.json", json.dumps(result, indent=2) + "\n")
        code = 0
    finally:
        if logger.kind == "wandb":
            import wandb

            wandb.finish(exit_code=code)
    print(f"Held-out free-running loss {result['val_loss']:.4f} after {result['epochs']} epochs.")
    print(f"The model: {folder / 'deprojector'}")
    if benchmark is not None:
        print(f"Its benchmark prompts: {folder / 'sheets' / 'best.png'}")
    return result


def finished(folder: Path, max_epochs: int) -> dict[str, Any] | None:
    """The result of a run that needs no more training, if the folder holds one."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None
    return result if result["stopped_early"] or result["epochs"] >= max_epochs else None


def start_from(model: Deprojector, source: Path, encoder: TextEncoder, config: dict[str, Any]) -> None:
    """Copies the weights of a run or an exported model into a new model."""
    folder = source / "deprojector" if (source / "deprojector").is_dir() else source
    other = type(model).from_pretrained(folder, encoder)
    learnt = other.provenance.get("selection", {}).get("_target_")
    if learnt not in (None, config["selection"]["_target_"]):
        raise UserError(
            f"{folder} learnt the order of selection={other.provenance['selection']['name']}, this run's is "
            f"{config['choices']['selection']}; start from a model with the same selection."
        )
    if other.config != model.config:
        raise UserError(f"{folder} is built as {other.config}, this run's model as {model.config}; set model.* alike.")
    # what is learnt, and nothing of the encoder's: the projection may be known to one of them only
    model.load_state_dict(dict(other.named_parameters()), strict=False)


def steps_done(checkpoint: Path) -> int:
    """Training steps behind a checkpoint, 0 where there is none."""
    import torch

    if not checkpoint.exists():
        return 0
    try:
        return int(torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"])
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise UserError(
            f"{checkpoint} is damaged ({type(error).__name__}); put best.ckpt in its place, or delete the run's folder."
        ) from None


def metrics_logger(folder: Path, steps: int) -> Any:
    """Lightning's logger of metrics.csv, which alone would delete the rows of the run that it goes on with."""
    from pytorch_lightning.loggers import CSVLogger

    rows = []
    if (folder / "metrics.csv").exists():
        with (folder / "metrics.csv").open(newline="") as file:
            rows = [{key: value for key, value in row.items() if value} for row in csv.DictReader(file)]
    logger = CSVLogger(folder, name="", version="")
    logger.experiment.metrics.extend(row for row in rows if int(row["step"]) < steps)
    return logger


def make_loggers(chosen: LoggerSettings, config: dict[str, Any], folder: Path, steps: int) -> list[Any]:
    """metrics.csv, and the logger that was chosen beside it."""
    from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

    loggers: list[Any] = [metrics_logger(folder, steps)]
    if chosen.kind == "tensorboard":
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    elif chosen.kind == "wandb":
        import wandb

        choices = config["choices"]
        if not wandb.api.api_key and "WANDB_MODE" not in os.environ:
            os.environ["WANDB_MODE"] = "offline"
            print(f"W&B: no key, so this run is kept offline; send it later with: wandb sync {folder}/wandb/offline-run-*")
        os.environ["WANDB_DATA_DIR"] = str(folder.resolve())
        name = f"{choices['selection']}-{choices['feed']}-{config['seed']}"
        loggers.append(WandbLogger(name=name, project=chosen.project, save_dir=folder, group=folder.parent.name, config=config))
    return loggers


def quiet_libraries() -> None:
    """Silences what tells a user nothing; warnings that matter are left alone."""
    for name in ("pytorch_lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Batches are slices of a memory map: worker processes would only copy them.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Lightning calling a function of torch's by its older name.
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\).*")
    # A run that goes on does so in its own folder; `metrics_logger` keeps what is there.
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*Experiment logs directory .* exists and is not empty.*")


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


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
