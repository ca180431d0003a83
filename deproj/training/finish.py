"""The end of a run: the best weights exported, drawn and measured, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytorch_lightning.loggers import Logger

from deproj.clip.distance import ROWS, EmbeddingDistance
from deproj.process.checkpoint import read_checkpoint
from deproj.process.machine import machine
from deproj.runs.commands import train_again
from deproj.runs.folder import RunFolder
from deproj.runs.records import Evaluation, RunResult
from deproj.runs.records import told as in_words
from deproj.training import log
from deproj.training.checkpoints import Behind
from deproj.training.clock import Clock
from deproj.training.dashboards import Dashboard
from deproj.training.parts import Parts, Pictures
from deproj.training.place import Place
from deproj.training.trainer import Training

__all__ = ["finish", "tell"]


def finish(
    parts: Parts, pictures: Pictures, place: Place, training: Training, behind: Behind, folder: RunFolder, clock: Clock
) -> RunResult:
    """Exports the best weights, draws and measures them, and writes how the run ended.

    Args:
        training: whose loggers are shown the measures and the model.
        behind: what the training has behind it.
    """
    export(parts, folder)
    if pictures.benchmark is not None:
        pictures.benchmark.draw(parts.module, folder.best_sheet)
    dashboards = [logger for logger in training.loggers if isinstance(logger, Dashboard)]
    evaluation = None
    if pictures.evaluator is not None:
        evaluation = pictures.evaluator(parts.model.eval(), parts.selection)
        folder.write(folder.evaluation(), evaluation)
        show(evaluation, behind, training.loggers, dashboards)
    clock.lap("export and evaluation")
    result = RunResult(
        val_loss=behind.best,
        epochs=behind.epochs,
        stopped_early=behind.stopped and behind.epochs < training.max_epochs,
        seconds=clock.total,
        phases=clock.phases,
        machine=machine(place.device) | {"precision": place.precision},
    )
    parts.model.describe(folder, result)
    parts.model.save_pretrained(folder.model)  # again, with its card
    for dashboard in dashboards:
        dashboard.model(folder.model)
        dashboard.summary(ended(parts, folder, result), {} if evaluation is None else evaluation.values)
    folder.write(folder.result, result)
    return result


def ended(parts: Parts, folder: RunFolder, result: RunResult) -> dict[str, Any]:
    """What dashboards tell of a run beside its curves."""
    curve, training = folder.learning_curve(), result.phases.get("training") or 0.0
    samples = result.epochs * len(parts.data.train or ())
    return {
        "best/epoch": min(curve, key=lambda point: point[1])[0] if curve else result.epochs,
        "best/val/loss": result.val_loss,
        "run/epochs": result.epochs,
        "run/seconds": result.seconds,
        "run/samples_per_second": round(samples / training, 1) if training else 0.0,
        "run/parameters": sum(parameter.numel() for parameter in parts.model.parameters()),
        "run/command": train_again(folder.read_config()),
    }


def export(parts: Parts, folder: RunFolder) -> None:
    """Writes the weights of the best epoch as a model, which knows how far an embedding is from its training ones."""
    parts.model.float()
    best = read_checkpoint(folder.best_checkpoint, "put last.ckpt in its place for the last epoch's weights")
    parts.module.load_state_dict(best["state_dict"])
    assert parts.data.train is not None
    parts.model.distance = EmbeddingDistance.fit(parts.data.train.embeddings(ROWS))
    parts.model.save_pretrained(folder.model)


def show(evaluation: Evaluation, behind: Behind, loggers: Sequence[Logger], dashboards: Sequence[Dashboard]) -> None:
    """Logs the measures."""
    numbers: Any = {"epoch": behind.epochs - 1, **evaluation.values}  # loggers count it from 1
    for logger in loggers:
        logger.log_metrics(numbers, behind.steps)
        logger.save()
    for dashboard in dashboards:
        dashboard.evaluation(evaluation, behind.steps)


def tell(result: RunResult, folder: RunFolder, pictures: Pictures) -> None:
    """Prints where the model is, and how good."""
    log.tell(f"Held-out free-running loss {result.val_loss:.4f} after {result.epochs} epoch{'s' * (result.epochs != 1)}.")
    log.tell(f"The model: {folder.model}")
    if pictures.evaluator is not None:
        values, kind = folder.read_evaluation().values, "composed"
        names = ("conditioning_error", "fidelity")
        said = [f"{in_words(name)} {values[f'{kind}/{name}']:.3f}" for name in names if f"{kind}/{name}" in values]
        count = len(pictures.evaluator.prompts)
        log.tell(f"On {count} held-out {kind} prompts: {', '.join(said) or 'states only, in evaluation.json'}.")
    if pictures.benchmark is not None:
        log.tell(f"Its benchmark prompts: {folder.best_sheet}")
