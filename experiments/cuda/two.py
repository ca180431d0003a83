"""Part 4: two processes. The command with trainer=ddp, then DDP itself over NCCL alone and over gloo on one card."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from common import CARD, WORK, Command, Part, last_line, pick

from deproj.data.cache import Rows
from deproj.feed import Recursive
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.ranks import summed, world_size
from deproj.selection import EosOnward
from deproj.training.objective.base import Learner, States

DEVICE = "cuda:0" if CARD else "cpu"
SMALL = [f"data.size={pick(2000, 200, 60)}", "data.held_out=20", "data.batch_size=20", "trainer.max_epochs=1"]
SMALL += ["trainer.progress=false", "render=off", "evaluate=0", f"data.cache={WORK}/cache-two/samples"]
WIDTH, BATCH = 64, 8


def gradients(rank: int, world: int, backend: str, folder: str) -> None:
    """One step's gradients of a process's part of a batch, as training takes them; rank zero writes them."""
    if world > 1 or backend == "nccl":
        distributed.init_process_group(
            backend, init_method=f"file://{folder}/meet-{backend}-{world}", rank=rank, world_size=world
        )
    torch.manual_seed(0)
    model = LSTMDeprojector(LSTMConfig(WIDTH, WIDTH * 3 // 2)).to(DEVICE, torch.float64)
    states, embedding = torch.randn(BATCH, 77, WIDTH).double(), torch.randn(BATCH, WIDTH).double()
    lengths, mine = torch.arange(5, 5 + BATCH), slice(rank, None, world)
    rows = Rows(embedding[mine].to(DEVICE), states[mine].to(DEVICE), lengths[mine].to(DEVICE), 1 / world, BATCH)
    run: Any = Step(Learner(model, EosOnward(), Recursive()))
    if distributed.is_initialized():
        devices = [0] if CARD else None
        run = torch.nn.parallel.DistributedDataParallel(run, device_ids=devices, forward_sync_buffers=False)
    loss = run(rows)
    (loss * rows.share * world_size()).backward()
    whole = summed(loss * rows.share)
    if rank == 0:
        found = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        torch.save({"loss": whole.cpu(), **found}, f"{folder}/{backend}-{world}.pt")
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Step(torch.nn.Module):
    """The loss as a module's forward, which DDP wants."""

    def __init__(self, learner: Learner) -> None:
        super().__init__()
        self.model, self.learner = learner.model, learner

    def forward(self, rows: Rows) -> torch.Tensor:
        return States().loss(self.learner, rows)


def alike(part: Part, name: str, file: str) -> None:
    alone = torch.load(WORK / "none-1.pt", weights_only=True)
    together = torch.load(WORK / file, weights_only=True)
    off = max(float((together[key] - value).norm() / (value.norm() + 1e-30)) for key, value in alone.items())
    part.check(name, off <= 1e-9, f"loss and gradients are one process's to {off:.1e}")


def commands(part: Part) -> None:
    """What a user types."""
    one = Command("deproj.train", "trainer=ddp", "trainer.devices=1", *SMALL, f"hydra.run.dir={WORK}/ddp-one").wait()
    part.check("trainer=ddp trainer.devices=1", one.code == 0, last_line(one.said))
    two = Command("deproj.train", "trainer=ddp", "trainer.devices=2", *SMALL, f"hydra.run.dir={WORK}/ddp-two").wait()
    if CARD and torch.cuda.device_count() < 2:
        told = [line for line in two.said.splitlines() if line.startswith("error:")]
        well = two.code == 1 and len(told) == 1 and not (WORK / "ddp-two").exists()
        part.check(
            "trainer=ddp trainer.devices=2 on one card is refused in a line", well, told[0] if told else last_line(two.said)
        )
        return
    part.check("trainer=ddp trainer.devices=2", two.code == 0, last_line(two.said))
    if one.code == two.code == 0:
        losses = [
            json.loads((WORK / name / "result.json").read_text(encoding="utf-8"))["val_loss"] for name in ("ddp-one", "ddp-two")
        ]
        off = abs(losses[1] / losses[0] - 1)
        part.check("two processes have the loss of one", off <= 1e-3, f"{losses[0]:.6f} and {losses[1]:.6f}")


def main() -> int:
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    part = Part()
    for path in Path(WORK).glob("meet-*"):
        path.unlink()
    gradients(0, 1, "none", str(WORK))
    if CARD:
        with part.step("NCCL, one process"):
            gradients(0, 1, "nccl", str(WORK))
            alike(part, "DDP over NCCL, one process", "nccl-1.pt")
    else:
        part.skip("DDP over NCCL, one process", "there is no card here")
    where = "on one card" if CARD else "without a card"
    for backend in ("gloo", *(["nccl"] if CARD else [])):
        name = f"two processes {where} over {backend}"
        try:
            spawn(backend)
        except Exception as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            if backend == "nccl":  # it refuses two processes on one card
                part.skip(name, f"not possible: {lines[-1][:200] if lines else type(error).__name__}")
            else:
                part.check(name, False, lines[-1][:300] if lines else type(error).__name__)
            continue
        alike(part, name, f"{backend}-2.pt")
    with part.step("commands"):
        commands(part)
    return part.end()


def spawn(backend: str) -> None:
    """Runs two processes, ended after a minute and a half."""
    context = multiprocessing.spawn(gradients, (2, backend, str(WORK)), nprocs=2, join=False)
    assert context is not None

    end = time.monotonic() + 90
    while not context.join(timeout=1):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError("they still waited for one another after 90 s")


if __name__ == "__main__":
    sys.exit(main())
