"""Where a run computes: its device, its precision, and which of its processes this one is."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from deproj.process.errors import UserError
from deproj.process.machine import multiplies_bfloat16
from deproj.process.ranks import Rank
from deproj.training.settings import Precision, RunSettings

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """Where a run computes.

    Attributes:
        device: cpu or cuda.
        precision: 32, 64, or "bf16" where the hardware multiplies faster in bfloat16.
        rank: which of the run's processes this is.
    """

    device: str
    precision: Precision
    rank: Rank

    @property
    def cuda(self) -> bool:
        return self.device == "cuda"

    @property
    def first(self) -> bool:
        """Whether this process is rank zero, which alone writes, draws and measures."""
        return self.rank.number == 0

    @property
    def dtype(self) -> torch.dtype:
        """In which a frozen U-Net computes."""
        kinds: dict[Precision, torch.dtype] = {32: torch.float32, 64: torch.float64, "bf16": torch.bfloat16}
        return kinds[self.precision]

    @classmethod
    def of(cls, chosen: RunSettings, batch_size: int, rank: Rank | None) -> Place:
        """Finds the place, and takes the GPU of this process.

        Args:
            rank: of a process that another one has started; None in the process of the command.

        Raises:
            UserError: where the settings ask for what this machine doesn't have.
        """
        trainer = chosen.trainer
        cuda = trainer.accelerator != "cpu" and torch.cuda.is_available()
        if trainer.accelerator == "gpu" and not cuda:
            raise UserError("trainer.accelerator=gpu, but there is no CUDA here; set trainer.accelerator=cpu or auto.")
        if trainer.cuda_graphs and not cuda:
            raise UserError("trainer.cuda_graphs=true, but this run has no CUDA; leave it false.")
        device = "cuda" if cuda else "cpu"
        precision = chosen.precision
        if precision == "bf16" and not multiplies_bfloat16(device):
            precision = 32
            print("precision=bf16, but this machine is slower at products in bfloat16 than in float32: float32 is used.")
        devices = trainer.processes(torch.cuda.device_count() if cuda else 0)
        rank = rank or Rank.first_of_node(trainer.nodes, devices)
        if batch_size < rank.size:
            raise UserError(f"data.batch_size={batch_size} is shared by {rank.size} processes; make it larger.")
        if trainer.cuda_graphs and rank.size > 1:
            raise UserError("trainer.cuda_graphs=true is for one process; leave it false with trainer=ddp.")
        if cuda:
            torch.cuda.set_device(rank.local)
        return cls(device, precision, rank)
