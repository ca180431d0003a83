"""What version 0.1 made, with its modules side by side, is still read: a run of it lies in tests/old.

It was made by ``python -m deproj.train hydra.run.dir=run model.hidden=2 data.size=60 data.held_out=10 data.batch_size=20
trainer.max_epochs=1 evaluate=2 render=off sd.steps=3`` at commit d0184bb.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended

from deproj.clip.encoder import TextEncoder
from deproj.measure.results import collect
from deproj.model import Deprojector, LSTMDeprojector
from deproj.runs.folder import RunFolder
from deproj.settings.compose import compose_config

OLD = Path(__file__).parent / "old" / "run"
RUNS = sorted(path.parent for path in (Path(__file__).parents[1] / "experiments").rglob("evaluation.json"))


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_its_run_goes_on(old: Path, train: Callable[..., Ended], caches: Path):
    """With the weights, the optimizer's state and the best loss of before."""
    before = RunFolder(old).read_result()
    ended = train("resume=run", "trainer.max_epochs=3", f"data.cache={caches}", "trainer.progress=false", defaults=False)
    assert ended.code == 0, ended.err
    after = RunFolder(old).read_result()
    assert (before.epochs, after.epochs) == (1, 3)
    assert after.val_loss < before.val_loss
    assert [epoch for epoch, _ in RunFolder(old).learning_curve()] == [1, 2, 3]
    assert RunFolder(old).learning_curve()[0][1] == pytest.approx(before.val_loss)


def test_its_finished_run_needs_nothing(old: Path, train: Callable[..., Ended]):
    assert "nothing to do" in train("resume=run", defaults=False).out


def test_its_exported_model_loads_and_starts_another(old: Path, train: Callable[..., Ended], encoder: TextEncoder):
    model = Deprojector.from_pretrained(old, encoder)
    assert isinstance(model, LSTMDeprojector)
    assert torch.isfinite(model.generate(encoder.embed(["cat maid"]))).all()
    assert train("init_from=run", "model.hidden=2", "hydra.run.dir=next").code == 0


def test_its_measures_are_compared(old: Path):
    (setting,), left_out = collect([old])
    assert not left_out
    assert setting.first.evaluation.values["single/likeness"] > 0
    assert "model.hidden=2" in setting.first.command
    assert "null" not in setting.first.command, "what it lacks is no setting of its own"


def test_every_setting_of_today_is_known_of_it(old: Path):
    known, today = RunFolder(old).read_config(), compose_config([])
    for group in ("data", "sd", "optimizer", "trainer"):
        assert set(today[group]) <= set(known[group]), group


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_the_experiments_evaluations_are_read(path: Path):
    run = RunFolder(path)
    evaluation = run.read_evaluation()
    assert len(evaluation.prompts) == 200
    if run.is_baseline:
        assert run.read_baseline().selection
    else:
        assert run.read_result().epochs == len(run.learning_curve())
