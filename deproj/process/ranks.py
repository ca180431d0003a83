"""Several processes for one run, on one machine or many: which this one is, and how the others are started.

A command is started once on every node, and starts the node's other processes itself, when the settings are checked and
the samples are there: in a sweep too, a job at a time. Rank zero writes all files; the others train and are silent.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, distributed

from deproj.process.errors import UserError, user_error_of
from deproj.process.interruption import Interrupted, Interruption
from deproj.process.node import node_number

Work = Callable[[Interruption, "Rank"], object]

__all__ = ["Rank", "others", "summed", "world_size"]


@dataclass(frozen=True)
class Rank:
    """Which of a run's processes this one is.

    Attributes:
        node, nodes: number of its machine, and how many there are.
        local, devices: its number on this machine, and how many processes there are on each.
        address, port: where rank zero listens.
        link: to the process that started this one, where one did.
    """

    node: int = 0
    nodes: int = 1
    local: int = 0
    devices: int = 1
    address: str = "127.0.0.1"
    port: int = 0
    link: Connection | None = None

    @property
    def number(self) -> int:
        return self.node * self.devices + self.local

    @property
    def size(self) -> int:
        return self.nodes * self.devices

    @classmethod
    def first_of_node(cls, nodes: int, devices: int) -> Rank:
        """The process that a user or SLURM has started on this node.

        Raises:
            UserError: where the node's number or rank zero's address isn't known.
        """
        if nodes * devices == 1:
            return cls()  # whatever the environment says: one of many runs that were started at once, for example
        node = node_number()
        if node >= nodes:
            raise UserError(f"this is node {node}, counted from 0, but trainer.nodes={nodes}; set it to the number of nodes.")
        if nodes * devices > 1 and (os.environ.get("SLURM_LOCALID", "0") != "0" or "LOCAL_RANK" in os.environ):
            raise UserError("start one process on each node (srun --ntasks-per-node=1, and no torchrun); it starts the others.")
        if nodes == 1:
            with socket.create_server(("127.0.0.1", 0)) as free:
                return cls(devices=devices, port=free.getsockname()[1])
        if "SLURM_NODEID" in os.environ:
            from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

            address = SLURMEnvironment.resolve_root_node_address(os.environ["SLURM_JOB_NODELIST"])
            return cls(node, nodes, 0, devices, address, SLURMEnvironment().main_port)
        try:
            return cls(node, nodes, 0, devices, os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        except (KeyError, ValueError):
            raise UserError(
                f"trainer.nodes={nodes} needs SLURM, or NODE_RANK, MASTER_ADDR and MASTER_PORT in the environment of each node."
            ) from None

    def together(self) -> dict[str, Any]:
        """What Lightning's trainer must know to train together with the others, or by itself.

        Left to itself it reads a process's number from RANK, LOCAL_RANK or SLURM_PROCID and guesses a cluster from such
        variables, also where many runs of one process each were started at once. So it is told.
        """
        from lightning_fabric.plugins.environments.lightning import LightningEnvironment
        from lightning_utilities.core.rank_zero import rank_zero_only
        from pytorch_lightning.strategies import DDPStrategy

        vars(rank_zero_only)["rank"] = self.number  # was read from the environment when Lightning was imported
        rank = self

        class Environment(LightningEnvironment):
            creates_processes_externally = property(lambda _: True)
            main_address = property(lambda _: rank.address)
            main_port = property(lambda _: rank.port)

            def node_rank(self) -> int:
                return rank.node

            def local_rank(self) -> int:
                return rank.local

        if self.size == 1:
            return {"plugins": [Environment()]}
        # the others may wait long for rank zero's pictures; no buffer changes in training
        strategy = DDPStrategy(cluster_environment=Environment(), timeout=timedelta(hours=2), forward_sync_buffers=False)
        return {"strategy": strategy, "num_nodes": self.nodes, "use_distributed_sampler": False}


def world_size() -> int:
    """Processes that train together with this one, itself counted."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed(value: Tensor) -> Tensor:
    """The sum of a tensor over the processes that train together."""
    value = value.detach().clone()
    if distributed.is_initialized():
        distributed.all_reduce(value)
    return value


@contextmanager
def others(rank: Rank, work: Work) -> Iterator[None]:
    """Runs a block beside the same block of this node's other processes.

    Args:
        work: what another process does, up to a block like this one and after it; a function that can be pickled.

    Raises:
        UserError: that of another process, or where one was killed.
        RuntimeError: where another process failed.
    """
    if rank.size == 1:
        yield
        return
    threads = torch.get_num_threads()
    each = max(1, threads // rank.devices)
    started: list[Other] = []
    try:
        if rank.link:
            rank.link.send(None)  # ready
        else:
            torch.set_num_threads(each)
            for local in range(1, rank.devices):
                started.append(Other(replace(rank, local=local), work, each))
            check(started, None)
            if rank.nodes > 1 and rank.node == 0:
                print(f"Waiting at {rank.address}:{rank.port} for the other nodes ({rank.nodes} in all).", flush=True)
        ended = threading.Event()
        threading.Thread(target=watch, args=(started, ended), daemon=True).start()
        try:
            yield
        except RuntimeError:  # a connection that broke off, or this process's own mistake
            check(started, 5)
            raise
        finally:
            ended.set()
        part()
        for other in started:
            other.process.join(60)
    finally:
        for other in started:
            other.process.kill()  # it writes nothing
            other.process.join()
        part()
        torch.set_num_threads(threads)


def part() -> None:
    """Leaves the others, so that the next run of a sweep may meet its own."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


class Other:
    """Another process on this node."""

    def __init__(self, rank: Rank, work: Work, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.number = rank.number
        self.link, theirs = context.Pipe()
        self.process = context.Process(target=live, args=(replace(rank, link=theirs), work, threads), daemon=True)
        self.process.start()
        theirs.close()

    def failure(self, seconds: float | None) -> Exception | None:
        """What ended it, if it ends within a time; it is awaited until it is ready or ends where there is none."""
        try:
            told = self.link.recv() if self.link.poll(seconds) else None
        except (EOFError, ConnectionResetError):
            self.process.join()
            code = self.process.exitcode or 0
            if code < 0:
                return UserError(f"process {self.number} was killed (signal {-code}); out of memory?")
            return UserError(f"process {self.number} was stopped.") if seconds is None else None
        return told if told is None else (UserError if told[0] else RuntimeError)(f"process {self.number}: {told[1]}")


def watch(started: list[Other], ended: threading.Event, patience: float = 60) -> None:
    """Ends this process with a word where another one has failed and this one still waits for it.

    gloo breaks off by itself, and sooner. On GPUs of one machine NCCL may wait for its timeout, in a call that no exception ends.
    """
    while not ended.wait(1):
        if any(other.process.exitcode not in (None, 0) for other in started) and not ended.wait(patience):
            for other in started:
                if (failure := other.failure(0)) is not None:
                    print(f"error: {failure}", file=sys.stderr, flush=True)
                other.process.kill()
            os._exit(1)


def check(started: list[Other], seconds: float | None) -> None:
    """Raises what ended one of the processes, the user's mistakes first."""
    if failures := [failure for other in started if (failure := other.failure(seconds)) is not None]:
        raise min(failures, key=lambda failure: not isinstance(failure, UserError))


def live(rank: Rank, work: Work, threads: int) -> None:
    """The life of a process that another one has started; it ends with that."""

    def follow() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    os.environ["RANK"] = str(rank.number)  # for libraries in which rank zero alone speaks
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    assert rank.link is not None
    try:
        with Interruption(silent=True) as interruption:
            torch.set_num_threads(threads)
            work(interruption, rank)
    except Interrupted:
        pass
    except Exception as error:
        told = user_error_of(error)
        rank.link.send((told is not None, str(told) if told else f"{error!r}\n{traceback.format_exc()}"))
        raise SystemExit(1) from None
