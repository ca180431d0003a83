"""Signals, kills, locks and damaged files: nothing is lost, and what goes on ends as if undisturbed. Real processes."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, start, wait_for

from deproj.process.errors import UserError
from deproj.runs.folder import RunFolder
from deproj.training.metrics_file import MetricsFile

Train = Callable[..., Ended]
SETTINGS = [
    "data.size=600",
    "data.held_out=20",
    "data.batch_size=10",
    "trainer.max_epochs=3",
    "trainer.progress=false",
    "render=1",
]
SETTINGS += ["evaluate=2", "feed=batch"]


def ended_alike(one: Path, other: Path) -> None:
    for name in ("deprojector/model.safetensors", "metrics.csv", "evaluation.json", "sheets/best.png", "sheets/epoch-003.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert not list(other.rglob("*.tmp*")), "nothing half-written"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, with the caches that the others share."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert start(folder, *SETTINGS, "data.cache=cache/samples", "hydra.run.dir=whole").wait() == 0
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_with_a_checkpoint(number: int, undisturbed: Path, tmp_path: Path):
    cache = f"data.cache={undisturbed / 'cache' / 'samples'}"
    process = start(tmp_path, *SETTINGS, cache, "hydra.run.dir=part")
    wait_for((tmp_path / "part" / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(number)
    assert process.wait() == 128 + number
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert f"python -m deproj.train resume={tmp_path / 'part'}" in said
    assert "Traceback" not in said
    assert start(tmp_path, "resume=part").wait() == 0
    ended_alike(undisturbed / "whole", tmp_path / "part")


def test_a_signal_before_training_stops_at_once(undisturbed: Path, tmp_path: Path):
    process = start(tmp_path, *SETTINGS, "data.size=100000", "data.cache=own", "hydra.run.dir=part")
    wait_for(lambda: any(tmp_path.glob("own/*.part/states.bin")), process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert not list(tmp_path.glob("own/*.part")), "nothing half-written"


def test_slurm_requeues_a_job_whose_time_is_up(undisturbed: Path, tmp_path: Path):
    """The signal is real, SLURM isn't: `scontrol` notes what it is asked."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n', encoding="utf-8")
    scontrol.chmod(0o755)
    cache = f"data.cache={undisturbed / 'cache' / 'samples'}"
    slurm = {"SLURM_JOB_ID": "17", "PATH": f"{scontrol.parent}:{os.environ['PATH']}"}
    process = start(tmp_path, *SETTINGS, cache, "hydra.run.dir=part", **slurm)
    wait_for((tmp_path / "part" / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 128 + signal.SIGUSR1
    assert (tmp_path / "asked").read_text(encoding="utf-8") == "requeue 17\n"
    assert "SLURM job 17 requeued." in (tmp_path / "said").read_text(encoding="utf-8")
    assert start(tmp_path, *SETTINGS, cache, "hydra.run.dir=part", **slurm).wait() == 0, "the same command goes on"
    process = start(tmp_path, *SETTINGS, cache, "hydra.run.dir=other", SLURM_JOB_ID="18")  # in a container, without scontrol
    wait_for((tmp_path / "other" / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait() == 128 + signal.SIGUSR1
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert "SLURM job 18 could not be requeued: scontrol: No such file" in said
    assert "Stopped. To go on: python -m deproj.train resume=" in said
    assert "Traceback" not in said
    ended_alike(undisturbed / "whole", tmp_path / "part")


def kill_at_random(seed: int, kills: int, undisturbed: Path, tmp_path: Path) -> list[float]:
    """Kills a run again and again, at any moment from its start on, and lets it end; gives the moments.

    The samples are encoded anew too, so that a kill may fall into that.
    """
    chance, moments = random.Random(seed), []
    command = [*SETTINGS, "data.cache=own/samples", "hydra.run.dir=part"]
    for _ in range(kills):
        process = start(tmp_path, *command)
        moments.append(chance.uniform(1, 14))
        try:
            process.wait(moments[-1])
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
    resume = ["resume=part"] if (tmp_path / "part" / "config.yaml").exists() else command
    assert start(tmp_path, *resume).wait() == 0, (tmp_path / "said").read_text(encoding="utf-8")
    ended_alike(undisturbed / "whole", tmp_path / "part")
    return moments


def test_a_resumed_run_counts_the_seconds_before(train: Train, tmp_path: Path):
    from deproj.training.checkpoints import Behind

    assert train("hydra.run.dir=run", "render=1").code == 0
    run = RunFolder(tmp_path / "run")
    before, first = Behind.of(run.last_checkpoint).phases, run.read_result()
    assert before["pictures"] > 0
    assert 0 < before["training"] <= first.phases["training"] + 0.1
    assert train("resume=run", "trainer.max_epochs=2", defaults=False).code == 0
    both, after = run.read_result(), Behind.of(run.last_checkpoint).phases
    assert both.phases["training"] > before["training"]
    assert after["training"] > before["training"]
    assert both.seconds >= round(sum(both.phases.values()) - 0.5)
    assert both.phases["pictures"] >= before["pictures"]


def test_a_learning_rate_that_has_fallen_does_not_rise_again(train: Train):
    assert train("hydra.run.dir=run", "optimizer.schedule=cosine").code == 0
    again = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert again.code == 1
    assert "its learning rate fall to 0 at the end of epoch 1" in again.err
    assert "start a new one with init_from=" in again.err


def test_killed_runs_end_as_if_undisturbed(undisturbed: Path, tmp_path: Path):
    kill_at_random(0, 2, undisturbed, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 6))
def test_killed_five_times_a_run(seed: int, undisturbed: Path, tmp_path: Path):
    print("killed after", [round(moment, 1) for moment in kill_at_random(seed, 5, undisturbed, tmp_path)])


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_killed_sweep_goes_on(undisturbed: Path, tmp_path: Path):
    sweep = ["-m", "seed=0,1", *SETTINGS, f"data.cache={undisturbed / 'cache' / 'samples'}", "hydra.sweep.dir=sweep"]
    process = start(tmp_path, *sweep)
    wait_for((tmp_path / "sweep" / "1-seed=1" / "checkpoints" / "last.ckpt").exists, process)
    process.kill()
    process.wait()
    assert start(tmp_path, *sweep).wait() == 0
    ended_alike(undisturbed / "whole", tmp_path / "sweep" / "0-seed=0")
    assert (tmp_path / "sweep" / "sweep.csv").read_text(encoding="utf-8").count(",done,") == 2


def test_two_processes_encode_once(undisturbed: Path, tmp_path: Path):
    quick = [*SETTINGS, "trainer.max_epochs=1", "render=off", "evaluate=0", "data.cache=own"]
    both = [start(tmp_path, *quick, f"hydra.run.dir={name}") for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "said").read_text(encoding="utf-8").count("waiting for it") >= 1
    weights = [(tmp_path / name / "deprojector" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_one_process_at_a_time_in_a_folder(train: Train, tmp_path: Path):
    from deproj.process.files import alone

    with alone(tmp_path / "run" / ".lock"):
        for _ in range(2):  # the first must not take the folder away, and with it the lock
            ended = train("hydra.run.dir=run")
            assert ended.code == 1
            assert "another process is at work on" in ended.err
    assert (tmp_path / "run" / ".lock").exists()


def test_a_read_only_folder_of_shared_work_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is there is read without a lock, which couldn't be written. Root may write anywhere, so the lock is refused here."""
    import deproj.process.kept

    made = deproj.process.kept.kept(tmp_path / "a.safetensors", lambda: {"x": torch.arange(3.0)}, "numbers")

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(deproj.process.kept, "alone", refused)
    found = deproj.process.kept.kept(tmp_path / "a.safetensors", lambda: pytest.fail("made again"), "numbers")
    assert torch.equal(found["x"], made["x"])


def test_fewer_epochs_than_a_run_has_behind_it_end_it(train: Train, tmp_path: Path):
    assert train("trainer.max_epochs=3", "hydra.run.dir=run").code == 0
    (tmp_path / "run" / "result.json").unlink()
    ended = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 0, ended.err
    assert json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["epochs"] == 3


def test_what_cannot_be_read_is_named(tmp_path: Path):
    from deproj.process.errors import user_error_of

    run = tmp_path / "run"
    read, written = (OSError(errno.EACCES, "Permission denied", str(path)) for path in (tmp_path / "c.txt", run / "x"))
    assert str(user_error_of(read, run)) == f"Permission denied: {tmp_path / 'c.txt'}."
    assert str(user_error_of(written, run)) == f"Permission denied: {run}. Make room or name another folder."


def test_a_full_disk_keeps_what_was_good(undisturbed: Path, tmp_path: Path):
    """A limit on the size of files stands for the full disk: writing fails in the same way, in the middle of a file."""
    cache = f"data.cache={undisturbed / 'cache' / 'samples'}"
    quick = [*SETTINGS, "render=off", "evaluate=0", cache, "hydra.run.dir=part"]
    assert start(tmp_path, *quick, "trainer.max_epochs=1").wait() == 0
    before = (tmp_path / "part" / "checkpoints" / "last.ckpt").read_bytes()
    with (tmp_path / "said").open("w", encoding="utf-8") as said:
        ended = subprocess.run(
            [sys.executable, "-m", "deproj.train", "resume=part", "trainer.max_epochs=3"], cwd=tmp_path, stdout=said, stderr=said,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000)),
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    assert ended.returncode == 1
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert "error: " in said
    assert "Traceback" not in said
    assert (tmp_path / "part" / "checkpoints" / "last.ckpt").read_bytes() == before
    assert not list(tmp_path.rglob("*.tmp*")), "nothing half-written"


def test_a_damaged_file_of_the_first_row_is_drawn_again(train: Train, tmp_path: Path):
    cache = f"data.cache={tmp_path / 'own' / 'samples'}"
    assert train("render=1", cache, "hydra.run.dir=a").code == 0
    (path,) = (tmp_path / "own" / "worlds").glob("benchmark-*.safetensors")
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    ended = train("render=1", cache, "hydra.run.dir=b")
    assert ended.code == 0
    assert "is damaged; the benchmark pictures of the true states are made again" in ended.out
    sheets = [(tmp_path / name / "sheets" / "best.png").read_bytes() for name in "ab"]
    assert sheets[0] == sheets[1]


@pytest.mark.parametrize("part", ["unet/diffusion_pytorch_model", "text_encoder/model", "clip/model", "reader/model"])
def test_damaged_weights_that_ship_are_refused(part: str, train: Train, world: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("deproj.pixel.WEIGHTS", world)
    path = world / f"{part}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    ended = train("hydra.run.dir=run")
    assert ended.code == 1
    assert ended.err.startswith(f"error: {path} is damaged: check deproj out, or install it, again.")
    path.unlink()
    assert "is missing" in train("hydra.run.dir=run").err


def test_a_damaged_model_that_ships_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from deproj.model import store
    from deproj.model.base import Deprojector

    models = Path(shutil.copytree(store.MODELS, tmp_path / "models"))
    monkeypatch.setattr(store, "MODELS", models)
    path = models / "all-batch" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        Deprojector.from_pretrained("all-batch")


def test_stopped_early_and_killed_before_its_result(train: Train, tmp_path: Path):
    """No epoch more than without the kill."""
    assert train("optimizer.learning_rate=1e-30", "trainer.max_epochs=9", "trainer.patience=2", "hydra.run.dir=run").code == 0
    result = tmp_path / "run" / "result.json"
    epochs = result.read_text(encoding="utf-8").partition('"epochs": ')[2][:2]
    metrics = (tmp_path / "run" / "metrics.csv").read_bytes()
    result.unlink()
    assert train("resume=run", defaults=False).code == 0
    assert result.read_text(encoding="utf-8").partition('"epochs": ')[2][:2] == epochs
    assert (tmp_path / "run" / "metrics.csv").read_bytes() == metrics


def test_metrics_outlive_kills(tmp_path: Path):
    """Whenever a run is killed, the file holds what was logged before; a row that was cut short is left out."""
    path = tmp_path / "metrics.csv"
    first = MetricsFile(tmp_path / "metrics.csv", 0)
    for step in (9, 19, 29):
        first.log_metrics({"epoch": 0, "train/loss": step / 7}, step)
        first.save()
    first.log_metrics({"epoch": 0, "val/loss": 0.25}, 29)
    first.save()
    before = path.read_text(encoding="utf-8")
    assert before.splitlines()[0] == "epoch,step,train/loss,val/loss"
    assert len(before.splitlines()) == 5
    again = MetricsFile(tmp_path / "metrics.csv", 20)
    assert path.read_text(encoding="utf-8") == before, "nothing is lost by starting"
    again.log_metrics({"epoch": 0, "train/loss": 29 / 7}, 29)
    again.save()
    again.log_metrics({"epoch": 0, "val/loss": 0.25}, 29)
    again.save()
    assert path.read_text(encoding="utf-8") == before, "what the checkpoint doesn't have behind it is logged again"
    for cut in (before[:-1], before[:-3], before + "1,39", before + "1,39\n", before + "x,y,,\n", before + "1,39,0.1,0.2,0.3\n"):
        path.write_text(cut, encoding="utf-8")
        third = MetricsFile(tmp_path / "metrics.csv", 40)
        third.log_metrics({"epoch": 1, "train/loss": 0.125}, 39)
        third.save()
        rows = before.splitlines() if cut.startswith(before) else before.splitlines()[:-1]
        if len(rows) == 4:  # the only row with a held-out loss was the cut one
            assert path.read_text(encoding="utf-8").splitlines()[-1].startswith("2,39,0.125")
        else:
            assert path.read_text(encoding="utf-8").splitlines() == [*rows, "2,39,0.125,"]


@pytest.mark.parametrize("name", ["best", "last"])
@pytest.mark.parametrize("how", ["cut", "flipped", "missing"])
def test_a_damaged_checkpoint_is_told(name: str, how: str, train: Train, tmp_path: Path):
    assert train("hydra.run.dir=run").code == 0
    (tmp_path / "run" / "result.json").unlink()
    path = tmp_path / "run" / "checkpoints" / f"{name}.ckpt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    if how != "missing":
        path.write_bytes(content if how == "flipped" else content[:-2000])
    ended = train("resume=run", defaults=False)
    if (name, how) == ("last", "missing"):
        assert ended.code == 0, "trained again"
        return
    assert ended.code == 1
    assert f"{name}.ckpt is {'missing' if how == 'missing' else 'damaged'}" in ended.err
    assert "Traceback" not in ended.err
    other = {"best": "last", "last": "best"}[name]
    path.write_bytes((path.parent / f"{other}.ckpt").read_bytes())
    assert train("resume=run", defaults=False).code == 0, "as the message says"
