"""Part 4: two processes. DDP over NCCL with one process, the command with trainer=ddp, two processes over gloo and over NCCL."""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from common import CARD, SHORTEST, WORK, Command, Part, last_line, pick
from warm import fork_here

from deproj.data.cache import Rows
from deproj.feed import Recursive
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.ranks import summed, world_size
from deproj.selection import EosOnward
from deproj.training.objective.base import Learner, States

DEVICE = "cuda:0" if CARD else "cpu"
SMALL = [f"data.size={pick(2000, 60, 40)}", "data.held_out=10", "data.batch_size=20", "trainer.max_epochs=1"]
SMALL += ["trainer.progress=false", "render=off", "evaluate=0", f"data.cache={WORK}/cache-two/samples"]
WIDTH, BATCH = 64, 8
#: Seconds after which processes that wait for one another are ended.
PATIENCE = pick(30, 120, 120)


def gradients(rank: int, world: int, backend: str, folder: str) -> None:
    """One step's gradients of a process's part of a batch, as training takes them; rank zero writes them."""
    faulthandler.dump_traceback_later(PATIENCE * 0.9)  # of a process that waits in vain, the log tells where
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
        run = torch.nn.parallel.DistributedDataParallel(run, device_ids=devices)
    loss = run(rows)
    (loss * rows.share * world_size()).backward()
    whole = summed(loss * rows.share)
    if rank == 0:
        found = {name: p.grad.cpu() for name, p in model.named_parameters() if p.grad is not None}
        used = distributed.get_backend() if distributed.is_initialized() else "none"
        torch.save({"loss": whole.cpu(), **found}, f"{folder}/{backend}-{world}.pt")
        Path(f"{folder}/{backend}-{world}.txt").write_text(used, encoding="utf-8")
    if distributed.is_initialized():
        distributed.destroy_process_group()
    faulthandler.cancel_dump_traceback_later()


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
    used = (WORK / file).with_suffix(".txt").read_text(encoding="utf-8")
    well = off <= 1e-9 and file.startswith(f"{used}-")
    part.check(name, well, f"{used}: loss and gradients are those without DDP to {off:.1e}")


def commands(part: Part) -> None:
    """What a user types."""
    alone = Command("deproj.train", "trainer=ddp", "trainer.devices=1", *SMALL, f"hydra.run.dir={WORK}/ddp-one").wait()
    said = f"{last_line(alone.said)} (one process needs no NCCL, so the command starts none)"
    part.check("trainer=ddp trainer.devices=1", alone.code == 0, said if alone.code == 0 else last_line(alone.said))
    if SHORTEST:
        part.skip("trainer=ddp trainer.devices=2", "its second process would import the libraries anew, for ten seconds")
        return
    two = Command("deproj.train", "trainer=ddp", "trainer.devices=2", *SMALL, f"hydra.run.dir={WORK}/ddp-two").wait()
    if CARD and torch.cuda.device_count() < 2:
        told = [line for line in two.said.splitlines() if line.startswith("error:")]
        well = two.code == 1 and len(told) == 1 and not (WORK / "ddp-two").exists()
        part.check(
            "trainer=ddp trainer.devices=2 on one card is refused in a line", well, told[0] if told else last_line(two.said)
        )
        return
    part.check("trainer=ddp trainer.devices=2", two.code == 0, last_line(two.said))
    if alone.code == two.code == 0:
        losses = [
            json.loads((WORK / name / "result.json").read_text(encoding="utf-8"))["val_loss"] for name in ("ddp-one", "ddp-two")
        ]
        off = abs(losses[1] / losses[0] - 1)
        part.check("two processes have the loss of one", off <= 1e-3, f"{losses[0]:.6f} and {losses[1]:.6f}")


def main() -> int:
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        os.environ.setdefault(name, "lo")  # a machine without a network may not find itself by its name
    part = Part()
    for path in Path(WORK).glob("meet-*"):
        path.unlink()
    one("none")
    if CARD:
        with part.step("NCCL, one process"):
            one("nccl")
            alike(part, "DDP over NCCL, one process", "nccl-1.pt")
    else:
        part.skip("DDP over NCCL, one process", "there is no card here")
    with part.step("commands"):
        commands(part)
    together(part, "gloo")
    if CARD:
        together(part, "nccl")
    return part.end()


def together(part: Part, backend: str) -> None:
    """Two processes' gradients against those of one."""
    name = f"two processes {'on one card' if CARD else 'without a card'} over {backend}"
    try:
        several(2, backend)
        alike(part, name, f"{backend}-2.pt")
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        said = lines[-1][:300] if lines else type(error).__name__
        refused = any(word in str(error) for word in ("DistBackendError", "Duplicate GPU"))
        if backend == "nccl" and (refused or isinstance(error, TimeoutError)):  # it has refused two processes on one card
            part.skip(name, f"not possible: {said}")
        else:
            part.check(name, False, said)


def one(backend: str) -> None:
    """One process, which is this one. After a gradient no process can be split off, so a rehearsal takes another."""
    if fork_here():
        several(1, backend)
    else:
        gradients(0, 1, backend, str(WORK))


def several(count: int, backend: str) -> None:
    """Runs processes, ended after a while."""
    method = "fork" if fork_here() else "spawn"
    context = multiprocessing.start_processes(gradients, (count, backend, str(WORK)), count, join=False, start_method=method)
    assert context is not None

    end = time.monotonic() + PATIENCE
    while not context.join(timeout=1):
        if time.monotonic() > end:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f"they still waited for one another after {PATIENCE} s")


if __name__ == "__main__":
    sys.exit(main())
