"""What a run writes into a file, and that a terminal sees one bar."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from conftest import Ended, on_terminal

from deproj.feed import Batch
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.progress import LineProgress
from deproj.selection import EosOnward
from deproj.training.module import DeprojectorModule
from deproj.training.objective import States
from deproj.training.objective.base import Learner
from deproj.training.progress import EpochLines

EPOCH = re.compile(
    r"epoch (?P<number>\d+) of (?P<all>\d+): train loss (?P<trained>\d\.\d{4}), held-out loss (?P<held_out>\d\.\d{4}), "
    r"(?P<seconds>[\w ]+?)(, about (?P<left>[\w ]+) left)?"
)


def epochs(text: str) -> list[re.Match[str]]:
    """The lines on epochs, whole."""
    return [match for line in text.splitlines() if (match := EPOCH.fullmatch(line))]


def test_a_file_gets_a_line_an_epoch_with_losses_seconds_and_what_is_left(train: Callable[..., Ended], tmp_path: Path):
    ended = train("trainer.progress=true", "trainer.max_epochs=3", "hydra.run.dir=run", "render=1", "evaluate=2")
    assert ended.code == 0, ended.err
    assert [(match["number"], match["all"]) for match in epochs(ended.err)] == [("1", "3"), ("2", "3"), ("3", "3")]
    assert epochs(ended.err)[-1]["left"] is None
    logged = (tmp_path / "run" / "train.log").read_text(encoding="utf-8")
    assert all(line in logged for line in (*ended.err.splitlines(), *ended.out.splitlines()[:2])), "a file has it too"
    with (tmp_path / "run" / "metrics.csv").open(encoding="utf-8") as file:
        noted = list(csv.DictReader(file))
    means = [f"{float(row['train/epoch_loss']):.4f}" for row in noted if row["train/epoch_loss"]]
    assert means == [match["trained"] for match in epochs(ended.err)], "the console and the file have the same mean"
    assert all(row["epoch"] for row in noted), "also where the measures stand"
    assert all(EPOCH.fullmatch(line) for line in ended.err.splitlines()), ended.err
    assert "\r" not in ended.out + ended.err
    assert len((ended.out + ended.err).encode()) < 1000
    best = min(float(match["held_out"]) for match in epochs(ended.err))
    assert f"Held-out free-running loss {best:.4f} after 3 epochs." in ended.out


def test_an_epochs_line_has_the_mean_of_its_steps_and_the_time_that_the_others_will_take():
    now, file = [0.0], io.StringIO()
    callback = EpochLines(LineProgress(file, clock=lambda: now[0]))
    metrics: dict[str, torch.Tensor] = {}
    trainer = SimpleNamespace(
        max_epochs=3, num_training_batches=3, global_step=0, current_epoch=0, callback_metrics=metrics, should_stop=False
    )
    learner = Learner(LSTMDeprojector(LSTMConfig(6, 9)), EosOnward(), Batch())
    module = DeprojectorModule(learner, States(), 1e-3)
    callback.on_train_start(cast(Any, trainer), module)
    for epoch, losses in enumerate([(0.3, 0.2, 0.1), (0.09, 0.08, 0.07), (0.06, 0.05, 0.04)]):
        trainer.current_epoch = epoch
        for loss in losses:
            now[0] += 3
            metrics["train/loss"] = torch.tensor(loss)
            module.passed = torch.tensor([sum(losses), 3.0])
            callback.on_train_batch_end(cast(Any, trainer), module)
        now[0] += 2  # validation and pictures
        metrics["val/loss"] = torch.tensor(losses[0])
        callback.on_train_epoch_end(cast(Any, trainer), module)
    callback.on_train_end(cast(Any, trainer), module)
    assert file.getvalue().splitlines() == [
        "epoch 1 of 3: train loss 0.2000, held-out loss 0.3000, 11 s, about 22 s left",
        "epoch 2 of 3: train loss 0.0800, held-out loss 0.0900, 11 s, about 11 s left",
        "epoch 3 of 3: train loss 0.0500, held-out loss 0.0600, 11 s",
    ]


def test_a_run_that_goes_on_counts_on(train: Callable[..., Ended]):
    train("hydra.run.dir=run")
    ended = train("resume=run", "trainer.max_epochs=2", "trainer.progress=true", defaults=False)
    assert [match["number"] for match in epochs(ended.err)] == ["2"]


def test_a_run_that_stops_early_says_so(train: Callable[..., Ended]):
    settings = ("trainer.max_epochs=9", "trainer.patience=1", "optimizer.learning_rate=1e-12")
    ended = train("trainer.progress=true", "hydra.run.dir=run", *settings)
    assert ended.err.splitlines()[-1].startswith("stopped early"), ended.err


def test_no_progress_where_none_is_asked_for(train: Callable[..., Ended]):
    ended = train("trainer.progress=false", "hydra.run.dir=run")
    assert ended.code == 0
    assert ended.err == ""


def test_the_lines_of_a_sweep_say_whose_they_are(train: Callable[..., Ended]):
    ended = train("-m", "trainer.progress=true", "hydra.sweep.dir=sweep", "seed=0,1")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.err.splitlines() if "epoch" in line]
    assert [line.partition(":")[0] for line in lines] == ["job 0", "job 1"]


def test_several_processes_speak_with_one_voice(train: Callable[..., Ended]):
    ended = train("trainer.progress=true", "hydra.run.dir=run", "trainer=ddp", "trainer.devices=2")
    assert ended.code == 0, ended.err
    assert [match["number"] for match in epochs(ended.err)] == ["1"]


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are of Unix")
def test_a_terminal_sees_one_bar_that_goes(caches: Path, tmp_path: Path):
    settings = ["data.size=60", "data.held_out=10", "data.batch_size=20", "trainer.max_epochs=2", "render=off", "evaluate=0"]
    settings += [f"data.cache={caches}", f"hydra.run.dir={tmp_path / 'run'}"]
    text = on_terminal("-m", "deproj.train", *settings, OMP_NUM_THREADS="1", MPLCONFIGDIR=str(tmp_path / "new"))
    assert "fontManager" not in text, "the first command on a machine is as quiet as the others"
    for said in ("\rloading: ", "\rtraining:   0%|", "\rexporting: "):
        assert said in text
    stays = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for drawn in line.split("\r"):
            shown = drawn + shown[len(drawn) :]
        stays.append(shown.rstrip())
    assert len(epochs("\n".join(stays[:2]))) == 2
    first = [(line.split() or [""])[0] for line in stays[2:]]
    first = [word for word in first if word != "source"]  # which stands there where no environment is active
    assert first == ["Held-out", "The", "To", "python", "python", "python", ""], "the result, and what to type next"
