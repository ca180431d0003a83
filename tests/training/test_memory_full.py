"""A card whose memory is full, by a stand-in for torch's error: one line, and nothing half-written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended
from torch import Tensor

from deproj.training.module import DeprojectorModule


def test_training_says_what_to_lower(train: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    done: list[int] = []
    whole = DeprojectorModule.training_step

    def step(self: DeprojectorModule, *arguments: object) -> Tensor:
        done.append(1)
        if len(done) > 4:  # in the second epoch, when there is a checkpoint
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return whole(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(DeprojectorModule, "training_step", step)
    ended = train("hydra.run.dir=run", "trainer.max_epochs=3")
    assert ended.code == 1
    (line,) = [line for line in ended.err.splitlines() if line.startswith("error:")]
    assert "data.batch_size" in line
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "run" / "deprojector").exists()
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name or ".part" in path.name]
    torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)

    monkeypatch.setattr(DeprojectorModule, "training_step", whole)
    assert train("resume=run", defaults=False).code == 0, "goes on where the memory was full"
