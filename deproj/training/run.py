"""One run: settings to objects, training, export, and what lies in its folder.

The heavy libraries are imported where they are used, so that a mistake in the settings is told at once.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from deproj.process.errors import UserError
from deproj.process.files import write_whole
from deproj.process.interruption import Interrupted, Interruption
from deproj.process.ranks import Rank, others
from deproj.settings.nodes import settings

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from deproj.clip.encoder import TextEncoder
    from deproj.model.base import Deprojector
from deproj.data.open import open_source
from deproj.process.machine import machine, multiplies_bfloat16
from deproj.process.quiet import quiet_libraries
from deproj.settings.build import build
from deproj.training.settings import LoggerSettings, OptimizerSettings, TrainerSettings, render_every

__all__ = ["finished", "run"]


def run(config: dict[str, Any], folder: Path, interruption: Interruption, rank: Rank | None = None) -> dict[str, Any]:
    """Trains, draws and exports one deprojector: the one place where settings become objects.

    Args:
        config: resolved settings, as in ``config.yaml``.
        folder: of the run; an interrupted run in it goes on.
        interruption: whose signals stop the training with a checkpoint.
        rank: which of the run's processes this is, where another one has started it. All but rank zero train only,
            and return no more than val_loss.

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
    if config["precision"] not in (32, 64, "bf16"):
        raise UserError(f"precision is 32, 64 or bf16; got {config['precision']!r}.")
    if done := finished(folder, trainer_settings.max_epochs):
        print(f"{folder} is done (held-out loss {done['val_loss']:.4f}); nothing to do.")
        return done
    start = time.monotonic()

    import pytorch_lightning as pl
    import torch
    from pytorch_lightning.callbacks import EarlyStopping, TQDMProgressBar

    from deproj.clip.distance import ROWS, EmbeddingDistance
    from deproj.clip.encoder import TextEncoder
    from deproj.data.batches import SamplesModule
    from deproj.draw.renderer import Renderer
    from deproj.draw.stable_diffusion import SdSettings
    from deproj.feed import FeedMode
    from deproj.measure.evaluator import Evaluator, evaluation_prompts
    from deproj.measure.results import describe
    from deproj.selection import TokenSelection
    from deproj.training.callbacks import BenchmarkSheet, LevelMemory, StopOnSignal
    from deproj.training.checkpoints import Behind, RunCheckpoint, WholeCheckpoints, read_checkpoint
    from deproj.training.dashboards import Dashboard
    from deproj.training.graphs import GraphedFeed
    from deproj.training.module import DeprojectorModule

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
    precision = config["precision"]
    if precision == "bf16" and not multiplies_bfloat16(device):
        precision = 32
        print("precision=bf16, but this machine has no products in bfloat16 and would be slow at them: float32 is used.")
    devices = trainer_settings.processes(torch.cuda.device_count() if cuda else 0)
    rank = rank or Rank.first_of_node(trainer_settings.nodes, devices)
    if data_settings.batch_size < rank.world:
        raise UserError(f"data.batch_size={data_settings.batch_size} is shared by {rank.world} processes; make it larger.")
    if trainer_settings.cuda_graphs and rank.world > 1:
        raise UserError("trainer.cuda_graphs=true is for one process; leave it false with trainer=ddp.")
    if cuda:
        torch.cuda.set_device(rank.local)

    if rank.number:
        every = prompts_at_end = 0  # rank zero draws and measures
    prompts = evaluation_prompts(source, prompts_at_end, 0) if prompts_at_end else []
    if prompts_at_end and len(prompts) < 2:
        prompts_at_end = 0
        print("The run won't be measured: that takes two held-out prompts or more that a comma or a space divides.")

    encoder = TextEncoder.from_pretrained(sd.path, sd.clip, device)
    model: Deprojector = build(config["model"], partial, "model")(encoder)
    last = folder / "checkpoints" / "last.ckpt"
    before = Behind.of(last)
    if config["init_from"] and not before.steps:
        start_from(model, config["init_from"], encoder, config)
    model.provenance |= {
        "selection": config["selection"] | {"name": config["choices"]["selection"]},
        "feed": config["feed"] | {"name": config["choices"]["feed"]},
        "init_from": config["init_from"],
    }
    if trainer_settings.cuda_graphs:
        feed = GraphedFeed(feed, data_settings.batch_size)
    module = DeprojectorModule(model, selection, feed, optimizer.learning_rate, precision == "bf16")
    if precision == 64:
        module.double()  # Lightning does so only after it has read a checkpoint, whose weights would be rounded
    data = SamplesModule(data_settings, source, encoder, selection, int(config["seed"]), before.steps, rank.number, rank.world)
    loaded = time.monotonic()
    data.setup()
    sampled = time.monotonic()

    worlds = Path(data_settings.cache).parent / "worlds"  # what belongs to a Stable Diffusion, for all runs
    renderer: Renderer | None = None
    benchmark: BenchmarkSheet | None = None
    callbacks: list[pl.Callback] = [EarlyStopping("val/loss", patience=trainer_settings.patience)]
    callbacks += [StopOnSignal(interruption, last), LevelMemory()]
    if trainer_settings.progress and rank.number == 0:
        callbacks.append(TQDMProgressBar(refresh_rate=5))
    if (every or prompts_at_end) and not cuda and not sd.cpu:
        print(f"Drawing nothing: there is no CUDA here, and sd={sd.name} is too slow on a CPU (sd.cpu=true draws all the same).")
    elif every or prompts_at_end:
        renderer = Renderer(sd, encoder.empty.states[0], device)
    if renderer is not None and every:
        label = f"{config['choices']['selection']}, {config['choices']['feed']}"
        benchmark = BenchmarkSheet(encoder, renderer, folder, label, every, worlds)
        callbacks.append(benchmark)
    callbacks.append(RunCheckpoint(last.parent))

    if rank.number == 0:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
        for name in ("result.json", "evaluation.json", "evaluation-mean.json", "sheets/best.png", "deprojector/sheet.png"):
            (folder / name).unlink(missing_ok=True)  # of fewer epochs
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=trainer_settings.max_epochs,
        accelerator="gpu" if cuda else "cpu",
        devices=rank.devices,
        precision="64-true" if precision == 64 else "32-true",
        logger=make_loggers(logger, config, folder, before.steps) if rank.number == 0 else False,
        callbacks=callbacks,
        plugins=WholeCheckpoints(),
        gradient_clip_val=trainer_settings.gradient_clip_val,
        enable_progress_bar=trainer_settings.progress and rank.number == 0,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, len(data.train_dataloader())),
        **rank.together(),
    )
    dashboards = [each for each in trainer.loggers if isinstance(each, Dashboard)]
    code = 1
    try:
        if not before.stopped and before.epochs < trainer_settings.max_epochs:
            with others(rank, partial(run, config, folder)):
                trainer.fit(module, data, ckpt_path=str(last) if before.steps else None)
        behind = Behind.of(last)
        if rank.number:
            return {"val_loss": behind.best}
        model.float()
        trained, drawing = time.monotonic(), 0.0 if benchmark is None else benchmark.seconds
        best = read_checkpoint(folder / "checkpoints" / "best.ckpt", "put last.ckpt in its place for the last epoch's weights")
        module.load_state_dict(best["state_dict"])
        assert data.train is not None
        model.distance = EmbeddingDistance.fit(data.train.embeddings(ROWS))
        model.save_pretrained(folder / "deprojector")
        if benchmark is not None:
            benchmark.draw(module, folder / "sheets" / "best.png")
        if prompts_at_end:
            evaluator = Evaluator(encoder, renderer, prompts, sd.clip, worlds)
            evaluation = evaluator(model.eval(), selection)
            write_whole(folder / "evaluation.json", json.dumps(evaluation) + "\n")
            numbers = {
                f"{kind}/{name}": entry["value"]
                for kind in ("single", "composed")
                for name, entry in evaluation[kind].items()
                if entry["value"] is not None
            }
            for each in trainer.loggers:
                each.log_metrics(numbers, behind.steps)
                each.save()
            for dashboard in dashboards:
                dashboard.evaluation(evaluation, behind.steps)
        result = {
            "state": "done",
            "val_loss": behind.best,
            "epochs": behind.epochs,
            "stopped_early": behind.stopped and behind.epochs < trainer_settings.max_epochs,
            "seconds": round(time.monotonic() - start, 1),
            "phases": {
                "loading": round(loaded - start, 1),
                "samples": round(sampled - loaded, 1),
                "training": round(trained - sampled - drawing, 1),
                "pictures": round(drawing, 1),
                "export and evaluation": round(time.monotonic() - trained, 1),
            },
            "machine": machine(device) | {"precision": precision},
        }
        describe(model, folder, result)
        model.save_pretrained(folder / "deprojector")  # again, with its card
        for dashboard in dashboards:
            dashboard.model(folder / "deprojector")
        write_whole(folder / "result.json", json.dumps(result, indent=2) + "\n")
        code = 0
    except Interrupted as stopped:
        code = 128 + stopped.number
        raise
    finally:
        for dashboard in dashboards:
            dashboard.finish(code)
    print(f"Held-out free-running loss {result['val_loss']:.4f} after {result['epochs']} epochs.")
    print(f"The model: {folder / 'deprojector'}")
    if prompts_at_end:
        found = evaluation["composed"]
        said = [
            f"{name} {found[name]['value']:.3f}"
            for name in ("conditioning error", "fidelity")
            if name in found and found[name]["value"] is not None
        ]
        print(f"On {len(prompts)} held-out composed prompts: {', '.join(said) or 'states only, in evaluation.json'}.")
    if benchmark is not None:
        print(f"Its benchmark prompts: {folder / 'sheets' / 'best.png'}")
    return result


def finished(folder: Path, max_epochs: int = 0) -> dict[str, Any] | None:
    """The result of a run that needs no more training than these epochs, if the folder holds one."""
    try:
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    except (OSError, ValueError):
        return None
    return result if result["stopped_early"] or result["epochs"] >= max_epochs else None


def start_from(model: Deprojector, source: str, encoder: TextEncoder, config: dict[str, Any]) -> None:
    """Copies the weights of a run, an exported or shipped model, or one on the Hub into a new model."""
    other = type(model).from_pretrained(source, encoder)
    learnt = other.provenance.get("selection", {}).get("_target_")
    if learnt not in (None, config["selection"]["_target_"]):
        raise UserError(
            f"{source} learnt the order of selection={other.provenance['selection']['name']}, this run's is "
            f"{config['choices']['selection']}; start from a model with the same selection."
        )
    if other.config != model.config:
        raise UserError(f"{source} is built as {other.config}, this run's model as {model.config}; set model.* alike.")
    # what is learnt, and nothing of the encoder's: the projection may be known to one of them only
    model.load_state_dict(dict(other.named_parameters()), strict=False)


def make_loggers(chosen: LoggerSettings, config: dict[str, Any], folder: Path, steps: int) -> list[Any]:
    """metrics.csv, and the dashboard that was chosen beside it."""
    from deproj.training.dashboards import TensorBoardDashboard, WandbDashboard
    from deproj.training.metrics_file import MetricsFile

    loggers: list[Any] = [MetricsFile(folder, steps)]
    if chosen.kind == "tensorboard":
        loggers.append(TensorBoardDashboard(folder, steps))
    elif chosen.kind == "wandb":
        loggers.append(WandbDashboard(config, folder, chosen.project, chosen.details))
    return loggers
