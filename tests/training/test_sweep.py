"""Sweeps: the index, failures, going on, shared work, and every launcher and sweeper for real."""

import contextlib
import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Ended, start, wait_for

from deproj.runs.folder import RunFolder
from deproj.runs.records import JobRecord
from deproj.training.sweep import named, note, rows

Train = Callable[..., Ended]


def index(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_indexed_and_skips_what_is_done(train: Train, tmp_path: Path):
    sweep = ["-m", "selection=words_eos,words_eos_reversed", "feed=batch", "evaluate=2", "hydra.sweep.dir=sweep"]
    ended = train(*sweep)
    assert ended.code == 0, ended.err
    assert "2 jobs, 2 done" in ended.out
    rows = index(tmp_path / "sweep")
    assert [(row["number"], row["selection"], row["feed"], row["seed"], row["state"]) for row in rows] == [
        ("0", "words_eos", "batch", "0", "done"),
        ("1", "words_eos_reversed", "batch", "0", "done"),
    ]
    for row in rows:
        assert float(row["val/loss"]) > 0
        assert float(row["seconds"]) > 0
        assert 0 <= float(row["composed/fidelity"]) <= 1
        assert float(row["single/conditioning_error"]) > 0
    names = ("0-selection=words_eos", "1-selection=words_eos_reversed")
    results = [tmp_path / "sweep" / name / "result.json" for name in names]
    times = [path.stat().st_mtime_ns for path in results]
    again = train(*sweep)
    assert again.code == 0, again.err
    assert again.out.count("nothing to do") == 2
    assert [path.stat().st_mtime_ns for path in results] == times
    lines = ended.out.splitlines()
    (head,) = (place for place, line in enumerate(lines) if line.startswith("  folder "))
    found = [line.split()[0] for line in lines[head + 3 : head + 5]]
    best = max(rows, key=lambda row: float(row["composed/fidelity"]))
    assert sorted(found) == list(names)
    assert found[0] == best["folder"] or rows[0]["composed/fidelity"] == rows[1]["composed/fidelity"], "the best first"
    assert not list((tmp_path / "sweep").rglob("app.log"))
    assert all(path.with_name("train.log").is_file() for path in results)


def test_a_change_of_one_job_reads_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    read: list[Path] = []
    whole = RunFolder.read_job

    def counted(run: RunFolder) -> JobRecord:
        read.append(run.path)
        return whole(run)

    monkeypatch.setattr(RunFolder, "read_job", counted)
    for number in range(12):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        note(
            tmp_path, folder, number, {"seed": number, "data.split": 0.1 * number} if number > 3 else {"seed": number}, "started"
        )
    note(tmp_path, tmp_path / "10", 10, {"seed": 10}, "failed", "a reason, with a comma")
    assert len(read) == 13
    found = index(tmp_path)
    assert [row["number"] for row in found] == [str(number) for number in range(12)]
    assert (found[10]["state"], found[10]["error"], found[10]["data.split"]) == ("failed", "a reason, with a comma", "")
    assert found == [{key: str(row.get(key, "")) for key in found[0]} for row in rows(tmp_path)], "as by reading all"
    (tmp_path / "sweep.csv").write_text("number,folder\nx", encoding="utf-8")
    note(tmp_path, tmp_path / "10", 10, {"seed": 10}, "done")
    assert len(index(tmp_path)) == 12, "what is damaged is made anew"


def test_a_sweep_of_before_goes_on_in_its_own_folders(train: Train, tmp_path: Path):
    assert train("-m", "seed=0,1", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=${hydra.job.num}").code == 0
    again = train("-m", "seed=0,1", "hydra.sweep.dir=sweep")
    assert again.out.count("nothing to do") == 2, again.err


def test_what_cannot_stand_in_a_folders_name_is_replaced_there(train: Train, tmp_path: Path):
    (tmp_path / "a.txt").write_text("\n".join(f"cat, maid {k}" for k in range(80)), encoding="utf-8")
    shutil.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    assert train("-m", f"data.prompts={tmp_path}/a.txt,{tmp_path}/b.txt", "seed=3,4", "hydra.sweep.dir=sweep").code == 0
    folders = sorted(path.name for path in (tmp_path / "sweep").iterdir() if path.is_dir())
    assert folders == ["0-prompts=a.txt-seed=3", "1-prompts=a.txt-seed=4", "2-prompts=b.txt-seed=3", "3-prompts=b.txt-seed=4"]


def test_a_sweep_goes_on_with_the_names_that_it_has(train: Train, tmp_path: Path):
    (tmp_path / "a.txt").write_text("\n".join(f"cat, maid {k}" for k in range(80)), encoding="utf-8")
    shutil.copy(tmp_path / "a.txt", tmp_path / "b.txt")
    command = ["-m", "data.prompts=./a.txt,./b.txt", "seed=3,4", "hydra.sweep.dir=sweep"]
    assert train(*command, "hydra.sweep.subdir='${hydra.job.num}-seed=${seed}'").code == 0
    again = train(*command)
    assert again.out.count("nothing to do") == 4, again.err
    assert train("-m", "seed=3", "feed=recursive", "data.split=0.1,0.2", "hydra.sweep.dir=sweep").code == 0
    assert (tmp_path / "sweep" / "1-split=0.2").is_dir(), "what it hadn't is named"


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (0.001, "0.001"),
        (None, "None"),
        (-0.5, "-0.5"),
        ("-x", "x"),
        (True, "True"),
        ("eos_onward", "eos_onward"),
        ("C:\\data\\captions of mine.txt", "captions-of-mine.txt"),
        ("/data/captions/", "captions"),
        ('a:b*?"<>|', "a-b"),
        ([1, 2], "1-2"),
        ("..", "empty"),
        ("x" * 100, "x" * 40),
        ("ünïcode 日本", "ünïcode-日本"),
        ("日" * 40, "日" * 13),
    ],
)
def test_a_value_in_a_folders_name(value: object, name: str):
    assert named(value) == name


@pytest.mark.parametrize("name", ["SLURM_NODEID", "NODE_RANK"])
def test_a_sweep_of_one_machine_is_its_own_first(name: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever number the environment gives that machine: its jobs are noted, and its end is told."""
    monkeypatch.setenv(name, "3")
    monkeypatch.setenv("SLURM_PROCID", "3")
    ended = train("-m", "seed=1,2", "optimizer.learning_rate=0.001,-1", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    assert "4 jobs, 2 done, 2 failed: sweep" in ended.out
    assert "To run just these again" in ended.err
    with (tmp_path / "sweep" / "sweep.csv").open(encoding="utf-8", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["done", "failed"] * 2
    done = [path.parent for path in (tmp_path / "sweep").rglob("result.json")]
    assert len(done) == 2
    for folder in done:
        assert (folder / "metrics.csv").is_file()
        assert (folder / "job.json").is_file()


def test_a_node_without_a_number_is_told(train: Train, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NODE_RANK", "first")
    ended = train("trainer=ddp", "trainer.nodes=2", "hydra.run.dir=run")
    assert ended.code == 1
    assert ended.err == "error: NODE_RANK is the number of a machine, 0 or more; got 'first'.\n"


def test_a_job_that_fails_does_not_stop_a_sweep(train: Train, tmp_path: Path):
    ended = train("-m", "data.batch_size=0,20", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    assert "0-batch_size=0 (data.batch_size=0) failed: data.batch_size" in ended.err
    assert "hydra.sweep.dir=sweep" in ended.err, "how to go on"
    log = tmp_path / "sweep" / "0-batch_size=0" / "train.log"
    assert "data.batch_size" in log.read_text(encoding="utf-8"), "in its own log"
    rows = index(tmp_path / "sweep")
    assert [row["state"] for row in rows] == ["failed", "done"]
    assert "at least 1; got 0" in rows[0]["error"]


def test_a_bug_in_a_job_leaves_its_traceback_in_the_jobs_log(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "broken.py").write_text(
        "from deproj.selection import TokenSelection\n"
        "class Broken(TokenSelection):\n    def plan(self, place, length):\n        return 1 / 0\n",
        encoding="utf-8",
    )
    (tmp_path / "own" / "selection").mkdir(parents=True)
    (tmp_path / "own" / "selection" / "broken.yaml").write_text("_target_: broken.Broken\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    ended = train("--config-dir=own", "-m", "selection=broken,all", "feed=batch", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    log = (tmp_path / "sweep" / "0-selection=broken" / "train.log").read_text(encoding="utf-8")
    assert "Traceback" in log
    assert "ZeroDivisionError" in log
    assert [row["state"] for row in index(tmp_path / "sweep")] == ["failed", "done"]


def test_the_flag_of_a_sweep_may_stand_anywhere(train: Train, tmp_path: Path):
    assert train("selection=words_eos", "-m", "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    assert len(index(tmp_path / "sweep")) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["resume="], "resume= names nothing"),
        (["hydra.run.dir="], "hydra.run.dir= names nothing"),
        (["selection", "all"], "selection is no setting: these are typed as NAME=VALUE, for example selection=all"),
    ],
)
def test_what_names_nothing_is_told(arguments: list[str], said: str, train: Train, tmp_path: Path):
    ended = train(*arguments)
    assert ended.code == 1
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_without_its_flag_is_told(train: Train):
    ended = train("feed=batch,recursive")
    assert ended.code == 1
    assert ended.err == "error: feed=batch,recursive is several values, which is a sweep: add -m.\n"
    assert (
        "a run takes one logger, beside its metrics.csv; got wandb,tensorboard. logger=wandb is one."
        in train("logger=wandb,tensorboard").err
    )


def test_a_sweep_goes_on_with_what_failed(train: Train, tmp_path: Path):
    sweep = ["-m", "selection=all,words_eos", "feed=batch", "hydra.sweep.dir=sweep"]
    (tmp_path / "blocked").touch()
    assert train(*sweep, "data.cache=blocked").code == 1
    assert [row["state"] for row in index(tmp_path / "sweep")] == ["failed", "failed"]
    assert train(*sweep).code == 0
    assert [row["state"] for row in index(tmp_path / "sweep")] == ["done", "done"]


def test_a_mistaken_sweep_leaves_the_records_of_another(train: Train, tmp_path: Path):
    assert train("-m", "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    before = index(tmp_path / "sweep")
    ended = train("-m", "feed=batch", "seed=0,1", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    assert ended.err.count("holds a run with feed=recursive, not batch") >= 2
    after = index(tmp_path / "sweep")
    assert [row | {"error": ""} for row in after] == before
    assert all("holds a run with" in row["error"] for row in after)
    assert train("-m", "seed=0,1", "hydra.sweep.dir=sweep").code == 0
    assert index(tmp_path / "sweep") == before


def test_a_sweep_of_which_nothing_began_leaves_nothing(train: Train, tmp_path: Path):
    assert train("-m", "selection=all,none_such", "hydra.sweep.dir=sweeps/new").code == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "mine").mkdir()
    assert train("-m", "selection=none_such", "hydra.sweep.dir=mine").code == 1
    assert (tmp_path / "mine").is_dir(), "which was there before"


def test_an_unknown_launcher_is_told(train: Train):
    ended = train("-m", "hydra/launcher=nothing", "seed=0,1")
    assert ended.code == 1
    assert "unknown hydra/launcher=nothing; allowed: basic" in ended.err
    assert "pip install 'deproj[sweeps]'" in ended.err


def test_the_first_row_is_drawn_once_for_all_jobs(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import torch

    from deproj.draw.renderer import Renderer

    drawn: list[torch.Tensor] = []
    draw = Renderer.__call__

    def noting(self: Renderer, states: torch.Tensor, *arguments: Any) -> torch.Tensor:
        drawn.append(states)
        return draw(self, states, *arguments)

    monkeypatch.setattr(Renderer, "__call__", noting)
    cache = tmp_path / "fresh" / "samples"
    assert train("-m", "seed=0,1", "render=1", f"data.cache={cache}").code == 0
    assert len(list((tmp_path / "fresh" / "worlds").glob("benchmark-*.safetensors"))) == 1
    assert len(drawn) == 5, "the true states once; each job's own after its epoch and of its best"
    assert len(list(cache.glob("*/header.json"))) == 2, "training and held-out samples encoded once"


def launched(launcher: str, caches: Path) -> list[str]:
    """Settings of a small sweep in the folder ``sweep``, whose jobs a launcher starts."""
    if launcher != "basic":
        pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra 'sweeps' is not installed")
    settings = ["data.size=60", "data.held_out=10", "data.batch_size=20", "trainer.progress=false", f"data.cache={caches}"]
    settings += ["render=off", "evaluate=0", "hydra.sweep.dir=sweep", f"hydra/launcher={launcher}"]
    return settings + ["hydra.launcher.n_jobs=2"] * (launcher == "joblib")  # on one core it would start no process


@pytest.mark.parametrize("launcher", ["joblib", "processes"])
def test_jobs_in_processes_of_their_own(launcher: str, caches: Path, tmp_path: Path):
    settings = ["seed=0,1", "optimizer.learning_rate=1e-3,-1", "trainer.max_epochs=1", *launched(launcher, caches)]
    command = [sys.executable, "-m", "deproj.train", "-m", *settings]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, encoding="utf-8", env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 1, ended.stderr
    rows = index(tmp_path / "sweep")
    assert [row["state"] for row in rows] == ["done", "failed", "done", "failed"]
    assert "learning_rate is above 0" in rows[1]["error"]


@pytest.mark.parametrize("launcher", ["joblib", "processes"])
def test_a_job_that_is_killed_is_told(launcher: str, caches: Path, tmp_path: Path):
    settings = launched(launcher, caches)
    process = start(tmp_path, "-m", "trainer.max_epochs=1,1000", "trainer.patience=1000", *settings)
    wait_for((tmp_path / "sweep" / "1-max_epochs=1000" / "checkpoints" / "last.ckpt").exists, process)
    wait_for(lambda: index(tmp_path / "sweep")[0]["state"] == "done", process)
    (victim,) = [pid for pid in descendants(process.pid) if (tmp_path / "sweep" / "1-max_epochs=1000" / ".lock") in locked(pid)]
    os.kill(victim, signal.SIGKILL)
    assert process.wait() == 1
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert "Traceback" not in said
    assert "error: the launcher has ended the sweep" in said
    assert "2 jobs, 1 done, 1 killed" in said
    assert "hydra.sweep.dir=sweep" in said.splitlines()[-1], "how to go on"
    assert [row["state"] for row in index(tmp_path / "sweep")] == ["done", "killed"]


def descendants(pid: int) -> set[int]:
    """All processes that a process has started, and these."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text(encoding="utf-8").split()):
            found |= {child} | descendants(child)
    return found


def locked(pid: int) -> set[Path]:
    """Files that a process has open."""
    return {path.resolve() for path in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_signal_in_a_sweep_tells_how_to_go_on(caches: Path, tmp_path: Path):
    process = start(tmp_path, "-m", "seed=0,1", "trainer.max_epochs=1000", "trainer.patience=1000", *launched("basic", caches))
    wait_for((tmp_path / "sweep" / "0-seed=0" / "checkpoints" / "last.ckpt").exists, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    said = (tmp_path / "said").read_text(encoding="utf-8")
    assert "1 job, 1 interrupted" in said
    assert said.splitlines()[-1].endswith("hydra.sweep.dir=sweep")
    assert "Traceback" not in said


@pytest.mark.parametrize("launcher", ["joblib", "processes"])
def test_a_signal_to_a_sweep_that_waits_for_its_jobs(launcher: str, caches: Path, tmp_path: Path):
    settings = launched(launcher, caches)
    process = start(tmp_path, "-m", "seed=0", "trainer.max_epochs=1000", "trainer.patience=1000", *settings)
    wait_for((tmp_path / "sweep" / "0" / "checkpoints" / "last.ckpt").exists, process)
    (job,) = [pid for pid in descendants(process.pid) if (tmp_path / "sweep" / "0" / ".lock") in locked(pid)]
    process.send_signal(signal.SIGTERM)
    try:
        assert process.wait(60) == 143
        said = (tmp_path / "said").read_text(encoding="utf-8")
        assert "Traceback" not in said
        state = {"joblib": "killed", "processes": "started: still at work, without this command"}[launcher]
        assert f"model=lstm seed=0) {state}\n" in said
        assert "hydra.sweep.dir=sweep\n" in said, "how to go on"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(job, signal.SIGKILL)


def test_a_job_whose_result_is_deleted_is_done_again(train: Train, tmp_path: Path):
    sweep = ["-m", "seed=0,1", "hydra.sweep.dir=sweep"]
    assert train(*sweep).code == 0
    (tmp_path / "sweep" / "1-seed=1" / "result.json").unlink()
    ended = train(*sweep)
    assert ended.code == 0, ended.err
    assert ended.out.count("nothing to do") == 1
    assert [row["state"] for row in index(tmp_path / "sweep")] == ["done", "done"]


def test_optuna_searches(train: Train, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra 'sweeps' is not installed")
    search = ["experiment=search", "hydra.sweeper.n_trials=3", "hydra.sweep.dir=sweep"]
    assert train(*search).code == 0
    rows = index(tmp_path / "sweep")
    assert len({row["optimizer.learning_rate"] for row in rows}) == 3
    best = (tmp_path / "sweep" / "optimization_results.yaml").read_text(encoding="utf-8")
    assert str(min(float(row["val/loss"]) for row in rows)) in best
    assert train(*search).out.count("nothing to do") == 3, "the same trials again"


def test_slurm_differs_from_processes_in_name_and_resources_only(train: Train, tmp_path: Path):
    import yaml

    from deproj.settings.shipped import CONF

    here, slurm = (
        yaml.safe_load((CONF / "hydra" / "launcher" / f"{name}.yaml").read_text(encoding="utf-8"))
        for name in ("processes", "slurm")
    )
    resources = {"cpus_per_task", "gpus_per_node", "max_num_timeout", "mem_gb", "partition", "signal_delay_s", "timeout_min"}
    assert (here.pop("defaults"), slurm.pop("defaults")) == (["submitit_local"], ["submitit_slurm"])
    assert set(here) <= set(slurm) <= resources
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra 'sweeps' is not installed")
    ended = train("-m", "seed=0,1", "hydra/launcher=slurm", "hydra.sweep.dir=sweep")
    assert ended.code == 1
    assert "hydra/launcher=processes is the same without it" in ended.err


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is a SLURM here, which would start the jobs")
def test_no_slurm_is_told_and_not_confused_with_a_job_that_died(train: Train, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="the extra 'sweeps' is not installed")
    ended = train("-m", "hydra/launcher=slurm", "seed=0,1")
    assert ended.code == 1
    assert ended.err == "error: there is no SLURM here (no srun); hydra/launcher=processes is the same without it.\n"

    def died(*_: object, **__: object) -> None:
        raise RuntimeError("Job 17 has not produced any output; stderr:\nsrun: error: node07: task 0: Out Of Memory")

    monkeypatch.setattr("deproj.train.job", died)
    with pytest.raises(RuntimeError, match="Out Of Memory"):
        train("-m", "hydra/launcher=slurm", "seed=0,1")
