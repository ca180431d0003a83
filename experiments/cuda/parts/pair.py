"""Part 4: two processes. `trainer=ddp` with one device; the card's own transport, NCCL; two processes on one card over gloo."""

from __future__ import annotations

import os
import socket

import torch
import torch.multiprocessing as multiprocessing
from shared import CUDA, DEVICE, WORK, check, deproj, end, furthest, keep
from torch import distributed, nn

TINY = ("data.size=200", "data.held_out=20", "trainer.max_epochs=1", "render=off", "evaluate=0")


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def step(rank: int, world: int, backend: str, port: str, device: str, path: str) -> None:
    """A step of a small model, its rows divided among the processes; rank zero writes the weights."""
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    distributed.init_process_group(backend, rank=rank, world_size=world)
    torch.manual_seed(0)
    rows, model = torch.randn(8, 16).to(device), nn.Linear(16, 16).to(device)
    model = nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(rows[rank::world]).square().mean().backward()
    optimizer.step()
    if rank == 0:
        torch.save(model.module.weight.detach().cpu(), path)
    distributed.destroy_process_group()


def weights(world: int, backend: str, device: str) -> torch.Tensor:
    path = str(WORK / f"{backend}-{world}.pt")
    multiprocessing.spawn(step, (world, backend, free_port(), device, path), world)
    found: torch.Tensor = torch.load(path, weights_only=True)
    return found


def main() -> None:
    seconds, _ = deproj(
        "train", "trainer=ddp", "trainer.devices=1", f"data.cache={WORK}/cache/samples", "hydra.run.dir=one", *TINY
    )
    keep("trainer=ddp, one device, seconds", round(seconds, 1))
    alone = weights(1, "nccl" if CUDA else "gloo", DEVICE)
    keep("one process", "nccl" if CUDA else "gloo")
    try:
        far = furthest(weights(2, "gloo", DEVICE), alone)
        keep("two processes over gloo, weights against one's", far)
        check(far < 1e-6, f"two processes give the weights of one, to {far:.1e}")
    except Exception as error:
        keep("two processes over gloo", f"not on this card: {type(error).__name__}: {str(error)[:200]}")
    if not CUDA:
        keep("two processes over NCCL", "not tried: there is no card")
        return
    try:
        weights(2, "nccl", DEVICE)
        keep("two processes over NCCL on one card", "work")
    except Exception as error:
        keep("two processes over NCCL on one card", f"refused by NCCL: {str(error).strip().splitlines()[-1][:200]}")


if __name__ == "__main__":
    main()
    end()
