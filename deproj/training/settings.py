"""The settings of a run that concern its training, checked."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal

from deproj.draw.settings import SdSettings
from deproj.process.errors import UserError
from deproj.settings.nodes import settings

__all__ = ["LoggerSettings", "OptimizerSettings", "Precision", "RunSettings", "TrainerSettings"]

Precision = Literal[32, 64, "bf16"]


@dataclass(frozen=True)
class TrainerSettings:
    """The settings under ``trainer``.

    Attributes:
        patience: training stops after this many epochs without improvement of the held-out free-running loss.
        accelerator: Lightning's: auto, cpu, gpu.
        gradient_clip_val: largest norm of the gradient, or None.
        cuda_graphs: whether a training step is captured as CUDA graphs.
        progress: whether to show how far the run is.
        devices: processes that train together on each node, or "auto": one for each GPU, or two without one.
        nodes: machines.
    """

    max_epochs: int
    patience: int
    accelerator: str
    gradient_clip_val: float | None
    cuda_graphs: bool
    progress: bool
    devices: int | str = 1
    nodes: int = 1

    def __post_init__(self) -> None:
        if self.max_epochs < 1 or self.patience < 1:
            raise UserError(f"trainer.max_epochs and trainer.patience are at least 1; got {self.max_epochs}, {self.patience}.")
        if self.gradient_clip_val is not None and not self.gradient_clip_val > 0:
            raise UserError(f"trainer.gradient_clip_val is above 0, or null for none; got {self.gradient_clip_val}.")
        if self.accelerator not in ("auto", "cpu", "gpu"):
            raise UserError(f"trainer.accelerator is auto, cpu or gpu; got {self.accelerator!r}.")
        if self.nodes < 1 or (self.devices != "auto" and (isinstance(self.devices, str) or self.devices < 1)):
            raise UserError(
                f"trainer.devices is auto or at least 1, trainer.nodes at least 1; got {self.devices!r}, {self.nodes}."
            )

    def processes(self, gpus: int) -> int:
        """How many train together on each node, given its GPUs, or 0 for training on the CPU."""
        if self.devices == "auto":
            return gpus or 2
        if gpus and int(self.devices) > gpus:
            raise UserError(f"trainer.devices={self.devices}, but there are {gpus} GPUs here; set it to {gpus} or auto.")
        return int(self.devices)


@dataclass(frozen=True)
class OptimizerSettings:
    """The settings under ``optimizer``.

    Attributes:
        schedule: constant, or cosine: the rate rises over the first twentieth of all steps and then falls to 0.
    """

    learning_rate: float
    schedule: str = "constant"

    def __post_init__(self) -> None:
        if self.schedule not in ("constant", "cosine"):
            raise UserError(f"optimizer.schedule is constant or cosine; got {self.schedule!r}.")


@dataclass(frozen=True)
class LoggerSettings:
    """The settings under ``logger``: csv, wandb or tensorboard, the W&B project, and whether W&B may collect details."""

    kind: str
    project: str = "deproj"
    details: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("csv", "wandb", "tensorboard"):
            raise UserError(f"logger.kind is csv, wandb or tensorboard; got {self.kind!r}.")
        if self.kind == "tensorboard" and find_spec("tensorboard") is None:
            raise UserError("logger=tensorboard needs a package that isn't here: pip install 'deproj[tensorboard]'.")
        if not 1 <= len(self.project) <= 128 or set(self.project) & set("/\\#?%:"):
            raise UserError(f"logger.project is a name of at most 128 characters without / \\ # ? % :; got {self.project!r}.")


def render_every(value: Any) -> int:
    """Epochs between sheets, 0 for none. YAML's ``off`` is False, the command line's is a string."""
    if value is True or value == "on":
        return 1
    if value is False or value == "off":
        return 0
    if isinstance(value, int) and value >= 1:
        return value
    raise UserError(f"render is off, on, or a number of epochs; got {value!r}.")


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run that are plain values, checked before anything heavy is imported.

    Attributes:
        render: epochs from one benchmark sheet to the next, 0 for none.
        evaluate: held-out prompts, single and composed each, that the finished run is measured on, 0 for none.
        seed: of the first weights and of the order of the batches.
    """

    trainer: TrainerSettings
    optimizer: OptimizerSettings
    logger: LoggerSettings
    sd: SdSettings
    render: int
    evaluate: int
    precision: Precision
    seed: int

    @classmethod
    def of(cls, config: dict[str, Any]) -> RunSettings:
        """The settings of a resolved config.

        Raises:
            UserError: for a value that is not allowed.
        """
        evaluate, precision = config["evaluate"], config["precision"]
        if not isinstance(evaluate, int) or evaluate < 0 or evaluate == 1:
            raise UserError(f"evaluate is a number of prompts, 0 for none, else 2 or more; got {evaluate!r}.")
        if precision not in (32, 64, "bf16"):
            raise UserError(f"precision is 32, 64 or bf16; got {precision!r}.")
        return cls(
            settings(TrainerSettings, config["trainer"], "trainer"),
            settings(OptimizerSettings, config["optimizer"], "optimizer"),
            settings(LoggerSettings, config["logger"], "logger"),
            settings(SdSettings, config["sd"], "sd"),
            render_every(config["render"]),
            evaluate,
            precision,
            int(config["seed"]),
        )
