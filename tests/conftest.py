"""Shared parts: the shipped pixel world, and the training command run in this process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from deproj.clip.distance import EmbeddingDistance
from deproj.clip.encoder import TextEncoder
from deproj.data.mix import Mix, Sample
from deproj.data.sources import GrammarPrompts
from deproj.pixel import WEIGHTS
from deproj.pixel.scenes import draw, sample

if TYPE_CHECKING:
    from deproj.pipeline import DeprojectorPipeline

if "PYTEST_XDIST_WORKER" in os.environ:  # a core each: more threads than cores wait for one another
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

#: For tests that look into processes by /proc, and end them with signals that Windows lacks.
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="session")
def encoder() -> TextEncoder:
    return TextEncoder.from_pretrained("pixel", "pixel")


@pytest.fixture(scope="session")
def distance(encoder: TextEncoder) -> EmbeddingDistance:
    """The distance to a thousand embeddings mixed as in training."""
    return EmbeddingDistance.fit(embeddings(Mix().samples(GrammarPrompts(), 1000, 0), encoder))


def embeddings(samples: Iterable[Sample], encoder: TextEncoder) -> Tensor:
    """Of mixed samples, (B, D)."""
    empty = encoder.empty.embedding[0]
    return torch.stack([(encoder.embed(sample.parts) - empty).sum(0) + empty for sample in samples])


@pytest.fixture(scope="session", autouse=True)
def no_folder_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept for all runs of a user is kept for these tests alone."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder of sample caches for all tests, so that equal samples are encoded once."""
    return tmp_path_factory.mktemp("caches")


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def on_terminal(*arguments: str, **environment: str) -> str:
    """All that a Python program writes on a pseudo terminal, which are of Unix; it must end well."""
    import pty

    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm"} | environment
    with subprocess.Popen([sys.executable, *arguments], stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        read = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            read += piece
        assert process.wait(60) == 0
    os.close(ours)
    return read.decode()


def call(
    main: Callable[[], int], arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Ended:
    """Runs a command's main function in this process."""
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    try:
        code = main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = capsys.readouterr()
    return Ended(code, said.out, said.err)


def start(folder: Path, *settings: str, **environment: str) -> subprocess.Popen[str]:
    """A training process; its messages go to a file, since a pipe that is full would stop it."""
    with (folder / "said").open("a", encoding="utf-8") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "deproj.train", *settings],
            cwd=folder, stdout=said, stderr=said, encoding="utf-8", env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        )  # fmt: skip


def wait_for(there: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Waits for something that a process does before it ends."""
    while not there():
        assert process.poll() is None, "the process ended before"
        time.sleep(0.02)


@pytest.fixture
def train(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Runs ``python -m deproj.train`` with small data, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    small = ["data.size=60", "data.held_out=10", "data.batch_size=20", "trainer.max_epochs=1", "trainer.progress=false"]
    small += [f"data.cache={caches}", "render=off", "evaluate=0"]

    def run(*arguments: str, defaults: bool = True) -> Ended:
        from deproj.train import main

        given = {argument.split("=")[0] for argument in arguments}
        rest = [setting for setting in small if setting.split("=")[0] not in given] if defaults else []
        return call(main, [*arguments, *rest], monkeypatch, capsys)

    return run


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(draw(sample(1, np.random.default_rng(5)))[0])


@pytest.fixture(scope="module")
def pipe(encoder: TextEncoder, distance: EmbeddingDistance) -> DeprojectorPipeline:
    """An untrained model: what it says is nonsense, how it is handled is not."""
    from deproj.model.lstm import LSTMDeprojector
    from deproj.pipeline import DeprojectorPipeline  # seconds, for tests that use it

    torch.manual_seed(0)
    model = LSTMDeprojector.for_encoder(encoder)
    model.distance = distance
    model.provenance["selection"] = {"_target_": "deproj.selection.EosOnward", "name": "eos_onward"}
    return DeprojectorPipeline.from_pretrained("pixel", model, device="cpu")


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A copy of the pixel world that a test may spoil."""
    import shutil

    return Path(shutil.copytree(WEIGHTS, tmp_path / "world"))
