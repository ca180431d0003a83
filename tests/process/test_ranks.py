"""Several processes, all real: the weights of one, whole sweeps, signals, kills, and two nodes on one machine."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, start, wait_for

from deproj.clip.encoder import TextEncoder
from deproj.data.batches import EpochOrder, Shard
from deproj.data.cache import CachedSamples, build_cache
from deproj.data.mix import Mix
from deproj.data.sources import GrammarPrompts
from deproj.process.errors import UserError
from deproj.process.ranks import Rank

Train = Callable[..., Ended]
#: Batches of 20, 20, 20 and 1: of the last, the second process has nothing.
SMALL = ["data.size=61", "data.held_out=11", "data.batch_size=20", "trainer.max_epochs=2", "trainer.progress=false"]
SMALL += ["render=off", "evaluate=0", "precision=64"]
LONG = ["data.size=600", "data.held_out=10", "data.batch_size=10", "trainer.max_epochs=2", "trainer.progress=false"]
LONG += ["render=off", "evaluate=0", "precision=64", "selection=words_eos", "feed=batch"]
DDP = ["trainer=ddp", "trainer.devices=2"]


def alike(one: Path, other: Path) -> None:
    """Whether two runs have the same weights, best and last, and metrics."""
    for name in ("best.ckpt", "last.ckpt"):
        weights = [torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"] for run in (one, other)]
        assert weights[0]["model.out_h.weight"].dtype == torch.float64
        for key, value in weights[0].items():
            torch.testing.assert_close(weights[1][key], value, rtol=0, atol=1e-5)
    metrics = [list(csv.DictReader((run / "metrics.csv").open(encoding="utf-8"))) for run in (one, other)]
    assert [row.keys() for row in metrics[0]] == [row.keys() for row in metrics[1]]
    for rows in zip(*metrics, strict=True):
        for key in ("train/loss", "val/loss"):
            first, second = (float(row[key] or 0) for row in rows)
            assert first == pytest.approx(second, rel=1e-9)


def children(pid: int) -> list[int]:
    """The processes that a process has started by `multiprocessing`."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


HANGS = """
import multiprocessing, os, signal, threading, time
from deproj.process.ranks import Other, watch

class Dies(Other):
    def __init__(self):
        self.number, (self.link, theirs) = 1, multiprocessing.Pipe()
        self.process = multiprocessing.get_context("fork").Process(target=lambda: os.kill(os.getpid(), signal.SIGKILL))
        self.process.start()
        theirs.close()

threading.Thread(target=watch, args=([Dies()], threading.Event(), 1), daemon=True).start()
time.sleep(100)
"""


def test_a_process_that_waits_for_a_dead_one_ends():
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, encoding="utf-8", timeout=60)
    assert ended.returncode == 1
    assert ended.stderr.endswith("error: process 1 was killed (signal 9); out of memory?\n")


def test_two_processes_are_one_in_a_sweep_too(train: Train, caches: Path, tmp_path: Path):
    assert train(*SMALL, "hydra.run.dir=one").code == 0
    sweep = [
        "-m",
        "optimizer.learning_rate=1e300,1e-3",
        *SMALL,
        *DDP,
        "render=2",
        "sd.steps=1",
        f"data.cache={caches}",
        "hydra.sweep.dir=sweep",
    ]
    assert start(tmp_path, *sweep).wait() == 1
    said = (tmp_path / "said").read_text(encoding="utf-8")
    with (tmp_path / "sweep" / "sweep.csv").open(encoding="utf-8") as file:
        failed, done = csv.DictReader(file)
    assert (failed["state"], done["state"]) == ("failed", "done"), said
    assert "the loss became" in failed["error"]
    alike(tmp_path / "one", tmp_path / "sweep" / "1-learning_rate=0.001")
    assert done["val/loss"]
    assert (tmp_path / "sweep" / "1-learning_rate=0.001" / "sheets" / "epoch-002.png").exists()
    assert said.count("Held-out free-running loss") == 1, "rank zero alone speaks"
    assert not any(word in said for word in ("Traceback", "Warning", "recommended")), said


def test_a_signal_stops_all_and_one_process_goes_on(train: Train, caches: Path, tmp_path: Path):
    assert train(*LONG, "hydra.run.dir=one").code == 0
    process = start(tmp_path, *LONG, *DDP, f"data.cache={caches}", "hydra.run.dir=two")
    wait_for((tmp_path / "two" / "checkpoints" / "last.ckpt").exists, process)
    (worker,) = children(process.pid)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert said.count("stopping after this batch") == 1
    assert f"resume={tmp_path / 'two'}" in said
    assert "Traceback" not in said, said
    assert not Path(f"/proc/{worker}").exists()
    assert train("resume=two", "trainer=single", defaults=False).code == 0
    alike(tmp_path / "one", tmp_path / "two")


@pytest.mark.parametrize("victim", [pytest.param("first", marks=pytest.mark.soak), "other"])
def test_a_killed_process_takes_the_others_with_it(victim: str, caches: Path, tmp_path: Path):
    endless = [*LONG, "trainer.max_epochs=1000", "trainer.patience=1000", *DDP, f"data.cache={caches}", "hydra.run.dir=run"]
    process = start(tmp_path, *endless)
    wait_for((tmp_path / "run" / "checkpoints" / "last.ckpt").exists, process)
    (worker,) = children(process.pid)
    os.kill(process.pid if victim == "first" else worker, signal.SIGKILL)
    assert process.wait() == (-9 if victim == "first" else 1)
    if victim == "other":
        assert "error: process 1 was killed (signal 9)" in (tmp_path / "said").read_text(encoding="utf-8")
    stat, until = Path(f"/proc/{worker}/stat"), time.monotonic() + 60
    while stat.exists() and stat.read_text(encoding="utf-8").split()[2] != "Z":
        assert time.monotonic() < until, "it lives on"
        time.sleep(0.1)


def test_two_nodes(train: Train, caches: Path, tmp_path: Path):
    """Two commands on one machine, told that they are on two; a free port stands for SLURM's."""
    assert train(*SMALL, "hydra.run.dir=one").code == 0
    nodes = ["trainer=ddp", "trainer.devices=1", "trainer.nodes=2", f"data.cache={caches}", "hydra.run.dir=two"]
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(Rank.first_of_node(1, 2).port)}
    both = [start(tmp_path, *SMALL, *nodes, NODE_RANK=str(number), **where) for number in (1, 0)]
    assert [process.wait() for process in both] == [0, 0], (tmp_path / "said").read_text(encoding="utf-8")
    alike(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "said").read_text(encoding="utf-8").count("Held-out free-running loss") == 1


def test_nodes_of_slurm(monkeypatch: pytest.MonkeyPatch):
    for name, value in {"SLURM_NODEID": "1", "SLURM_JOB_NODELIST": "gpu[07-09],big3", "SLURM_JOB_ID": "4321"}.items():
        monkeypatch.setenv(name, value)
    rank = Rank.first_of_node(4, 8)
    assert (rank.number, rank.size, rank.address, rank.port) == (8, 32, "gpu07", 19321)
    with pytest.raises(UserError, match=r"node 1, counted from 0, but trainer\.nodes=1"):
        Rank.first_of_node(1, 8)
    monkeypatch.setenv("SLURM_LOCALID", "3")
    with pytest.raises(UserError, match="one process on each node"):
        Rank.first_of_node(4, 8)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trainer.devices=0"], "trainer.devices is auto or at least 1"),
        (["trainer.devices=some"], "trainer.devices is auto or at least 1"),
        (["trainer=ddp", "data.batch_size=1"], "shared by 2 processes"),
        (["trainer=ddp", "trainer.nodes=2"], "name the run's folder"),
        (["trainer=ddp", "trainer.nodes=2", "hydra.run.dir=x"], "NODE_RANK, MASTER_ADDR and MASTER_PORT"),
        (["-m", "trainer=ddp", "trainer.nodes=2", "hydra.sweep.dir=x"], "hydra/launcher=slurm"),
        (["trainer=many"], "ddp, single"),
    ],
)
def test_mistakes_get_a_line(train: Train, arguments: list[str], said: str):
    ended = train(*arguments)
    assert ended.code == 1
    assert said in ended.err
    assert "Traceback" not in ended.err


@pytest.fixture(scope="module")
def samples(encoder: TextEncoder, caches: Path) -> CachedSamples:
    return build_cache(caches, {}, Mix().samples(GrammarPrompts(), 23, 0), 23, encoder, "samples")


@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_the_parts_of_a_batch_are_the_batch(samples: CachedSamples, world: int):
    for batch in EpochOrder(23, 5, 0, samples.length):
        parts = [Shard(samples, rank, world)[batch] for rank in range(world)]
        assert sum(part.share for part in parts) == pytest.approx(1)
        counted = torch.cat([part.embedding for part in parts if part.share])
        whole = samples[batch].embedding
        assert sorted(map(tuple, counted.tolist())) == sorted(map(tuple, whole.tolist()))
        assert all(len(part.length) == max(round(part.share * len(batch)), 1) and part.whole == len(batch) for part in parts)
