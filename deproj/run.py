"""One run: settings to objects, training, pictures, and what lies in its folder.

A run's folder holds ``config.yaml`` (resolved), ``metrics.csv``, ``sheets/``, ``checkpoints/`` (best and last),
``deprojector/`` and, when it is done, ``result.json``. The heavy libraries are imported where they are used, so that
a mistake in the settings is told at once.
"""

from __future__ import annotations

import csv
import json
import logging
import os
import platform
import time
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.errors import UserError
from deproj.settings import settings

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from deproj.data import DataSettings
    from deproj.encoder import TextEncoder
    from deproj.model import Deprojector
    from deproj.prompts import PromptSource

__all__ = ["build", "machine", "open_source", "quiet_libraries", "run", "write_whole"]


@dataclass(frozen=True)
class TrainerSettings:
    """The settings under ``trainer``.

    Attributes:
        patience: epochs that the held-out free-running loss may not fall before training stops.
        accelerator: Lightning's: auto, cpu, gpu.
        gradient_clip_val: largest norm of the gradient, or None.
        cuda_graphs: whether a training step is captured as CUDA graphs.
        progress: whether to show a progress bar.
    """

    max_epochs: int
    patience: int
    accelerator: str
    gradient_clip_val: float | None
    cuda_graphs: bool
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


def run(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Trains, draws and exports one deprojector: the one place where settings become objects.

    Args:
        config: resolved settings, as in ``config.yaml``.
        folder: of the run; an interrupted run in it goes on.

    Returns:
        What ``result.json`` holds: state, val_loss (best, free-running), epochs, seconds and what they were spent on,
        versions and hardware.
    """
    trainer_settings = settings(TrainerSettings, config["trainer"], "trainer")
    optimizer = settings(OptimizerSettings, config["optimizer"], "optimizer")
    logger = settings(LoggerSettings, config["logger"], "logger")
    every = render_every(config["render"])
    prompts_at_end = config["evaluate"]
    if not isinstance(prompts_at_end, int) or prompts_at_end < 0 or prompts_at_end == 1:
        raise UserError(f"evaluate is a number of prompts, 0 for none, else 2 or more; got {prompts_at_end!r}.")
    if config["precision"] not in (32, "bf16"):
        raise UserError(f"precision is 32 or bf16; got {config['precision']!r}.")
    if done := finished(folder, trainer_settings.max_epochs):
        print(f"{folder} is done (held-out loss {done['val_loss']:.4f}); nothing to do.")
        return done
    start = time.monotonic()

    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import EarlyStopping, TQDMProgressBar

    from deproj.callbacks import BenchmarkSheet, RunCheckpoint
    from deproj.data import SamplesModule
    from deproj.encoder import TextEncoder
    from deproj.evaluator import Evaluator, evaluation_prompts
    from deproj.feed import FeedMode
    from deproj.graphs import GraphedFeed
    from deproj.module import DeprojectorModule
    from deproj.render import Renderer, SdSettings
    from deproj.selection import TokenSelection

    quiet_libraries()
    sd = settings(SdSettings, config["sd"], "sd")
    data_settings, source = open_source(config)
    selection = build(config["selection"], TokenSelection, "selection")
    feed = build(config["feed"], FeedMode, "feed")
    pl.seed_everything(int(config["seed"]), verbose=False)
    cuda = trainer_settings.accelerator != "cpu" and torch.cuda.is_available()
    if trainer_settings.accelerator == "gpu" and not cuda:
        raise UserError("trainer.accelerator=gpu, but there is no CUDA here; set trainer.accelerator=cpu or auto.")
    if trainer_settings.cuda_graphs and not cuda:
        raise UserError("trainer.cuda_graphs=true, but this run has no CUDA; leave it false.")
    device = "cuda" if cuda else "cpu"

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
    if trainer_settings.cuda_graphs:
        feed = GraphedFeed(feed, data_settings.batch_size)
    module = DeprojectorModule(model, selection, feed, optimizer.learning_rate, config["precision"] == "bf16")
    data = SamplesModule(data_settings, source, encoder, selection, int(config["seed"]))
    loaded = time.monotonic()
    data.setup()
    sampled = time.monotonic()

    checkpoint = RunCheckpoint(
        str(folder / "checkpoints"), "best", monitor="val/loss", save_last=True, enable_version_counter=False
    )
    renderer: Renderer | None = None
    benchmark: BenchmarkSheet | None = None
    callbacks: list[pl.Callback] = [EarlyStopping("val/loss", patience=trainer_settings.patience)]
    if trainer_settings.progress:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    if (every or prompts_at_end) and not cuda and not sd.cpu:
        print(f"Drawing nothing: there is no CUDA here, and sd={sd.name} is too slow on a CPU (sd.cpu=true draws all the same).")
    elif every or prompts_at_end:
        renderer = Renderer(sd, encoder.empty.states[0], device)
    if renderer is not None and every:
        label = f"{config['choices']['selection']}, {config['choices']['feed']}"
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
    for name in ("result.json", "evaluation.json", "evaluation-mean.json"):  # of fewer epochs
        (folder / name).unlink(missing_ok=True)
    code = 1
    try:
        trainer.fit(module, data, ckpt_path=str(last) if last.exists() else None)
        trained, drawing = time.monotonic(), 0.0 if benchmark is None else benchmark.seconds
        best = torch.load(folder / "checkpoints" / "best.ckpt", map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        model.save_pretrained(folder / "deprojector")
        if benchmark is not None:
            benchmark.draw(module, folder / "sheets" / "best.png")
        if prompts_at_end:
            prompts = evaluation_prompts(source, prompts_at_end, 0)
            evaluator = Evaluator(encoder, renderer, prompts, sd.clip, Path(data_settings.cache).parent / "worlds")
            evaluation = evaluator(model.eval(), selection)
            write_whole(folder / "evaluation.json", json.dumps(evaluation) + "\n")
            numbers = {
                f"{kind}/{name}": entry["value"]
                for kind in ("single", "composed")
                for name, entry in evaluation[kind].items()
                if entry["value"] is not None
            }
            for each in trainer.loggers:
                each.log_metrics(numbers, trainer.global_step)
                each.save()
        assert checkpoint.best_model_score is not None
        result = {
            "state": "done",
            "val_loss": float(checkpoint.best_model_score),
            "epochs": trainer.current_epoch,
            "stopped_early": trainer.current_epoch < trainer_settings.max_epochs,
            "seconds": round(time.monotonic() - start, 1),
            "phases": {
                "loading": round(loaded - start, 1),
                "samples": round(sampled - loaded, 1),
                "training": round(trained - sampled - drawing, 1),
                "pictures": round(drawing, 1),
                "export and evaluation": round(time.monotonic() - trained, 1),
            },
            "machine": machine(device),
        }
        write_whole(folder / "result.json", json.dumps(result, indent=2) + "\n")
        code = 0
    finally:
        if logger.kind == "wandb":
            import wandb

            wandb.finish(exit_code=code)
    print(f"Held-out free-running loss {result['val_loss']:.4f} after {result['epochs']} epochs.")
    print(f"The model: {folder / 'deprojector'}")
    if prompts_at_end:
        found = evaluation["composed"]
        said = [
            f"{name} {found[name]['value']:.3f}"
            for name in ("conditioning error", "fidelity")
            if name in found and found[name]["value"] is not None
        ]
        print(f"On {prompts_at_end} held-out composed prompts: {', '.join(said) or 'states only, in evaluation.json'}.")
    if benchmark is not None:
        print(f"Its benchmark prompts: {folder / 'sheets' / 'best.png'}")
    return result


def machine(device: str) -> dict[str, Any]:
    """Versions and hardware, as far as they bear on results and times; nothing that tells one machine from its like."""
    from importlib.metadata import version

    import torch

    names = ("torch", "pytorch-lightning", "transformers", "diffusers")
    kind = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return {"python": platform.python_version(), "device": kind, "threads": torch.get_num_threads()} | {
        name: version(name) for name in names
    }


def open_source(config: dict[str, Any]) -> tuple[DataSettings, PromptSource]:
    """The data settings of a run and the texts they name."""
    from deproj.data import DataSettings
    from deproj.prompts import open_prompts

    chosen = settings(DataSettings, config["data"], "data")
    if not chosen.prompts:
        raise UserError(
            f"sd={config['sd']['name']} has no prompts of its own; name yours: data.prompts=captions.txt (or grammar)."
        )
    return chosen, open_prompts(chosen.prompts, chosen.column)


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
