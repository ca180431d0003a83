"""A mistake takes away what its own process made, and nothing of the user's; runs get folders and files of their own."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

from deproj.train import resume_folder
from deproj.training.made import new_folder

MISTAKE = ["selection=words_eos", "feed=recursive", "trainer.patience=wrong"]


@pytest.mark.parametrize("there", [["mine/run/train.log"], ["mine/run/notes.txt"], ["mine/run/.lock"], ["mine/other.txt"]])
def test_a_mistake_deletes_nothing_of_the_users(there: list[str], train: Callable[..., Ended], tmp_path: Path):
    for name in there:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("mine", encoding="utf-8")
    ended = train(*MISTAKE, "hydra.run.dir=mine/run")
    assert ended.code == 1
    assert "patience" in ended.err
    assert all((tmp_path / name).read_text(encoding="utf-8").startswith("mine") for name in there)


@pytest.mark.parametrize("where", ["mine/run", "mine", "."])
def test_empty_folders_of_the_users_stay(where: str, train: Callable[..., Ended], tmp_path: Path):
    (tmp_path / where).mkdir(parents=True, exist_ok=True)
    assert train(*MISTAKE, f"hydra.run.dir={where}").code == 1
    assert (tmp_path / where).is_dir()


def test_a_mistake_leaves_nothing_of_its_own(train: Callable[..., Ended], tmp_path: Path):
    assert train(*MISTAKE, "hydra.run.dir=new/run").code == 1
    assert train(*MISTAKE).code == 1
    assert list(tmp_path.iterdir()) == []


def test_runs_of_one_second_get_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(new_folder(Path("runs/now")))) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == len(list((tmp_path / "runs").iterdir())) == 20


@pytest.mark.parametrize("experiment", ["small", "best"])
def test_a_run_whose_folder_has_a_name_makes_no_other(experiment: str, train: Callable[..., Ended], tmp_path: Path):
    ended = train("--dry-run", f"experiment={experiment}")
    assert f"Folder: {Path('runs', experiment)}." in ended.out
    assert list(tmp_path.iterdir()) == []
    assert train(f"experiment={experiment}", "trainer.patience=wrong").code == 1
    assert list(tmp_path.iterdir()) == []
    own = ("objective.states_first=9", "data.variants=2", "model.hidden=16")
    assert train(f"experiment={experiment}", *own).code == 0
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [experiment]


def test_a_checkpoint_is_understood_as_its_run():
    run = Path("runs/a")
    given = [run, run / "checkpoints" / "last.ckpt", run / "last.ckpt"]
    assert [resume_folder(path) for path in given] == [run] * 3


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID", "SLURM_NODEID", "NODE_RANK"])
def test_a_run_of_one_process_is_rank_zero(
    name: str, train: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for variable, value in {name: "3", "SLURM_NTASKS": "4", "SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "jobs"}.items():
        monkeypatch.setenv(variable, value)
    assert train("selection=words_eos", "feed=recursive", "hydra.run.dir=run").code == 0
    assert (tmp_path / "run" / "metrics.csv").read_text(encoding="utf-8").count("\n") > 1
    assert (tmp_path / "run" / "result.json").is_file()


@pytest.mark.parametrize("name", ["a(1)", "a=b", "a[1", "a{1", "it's", "~a b(", "a,b("])
def test_names_that_hydra_cannot_read_are_shown_quoted(name: str, train: Callable[..., Ended]):
    ended = train(*MISTAKE, f"hydra.run.dir={name}")
    assert ended.code == 1
    if "can't be read" not in ended.err:
        return  # Hydra reads it
    argument = shlex.split(ended.err.partition("Type it as: ")[2])[0]
    again = train(*MISTAKE, argument)
    assert "patience" in again.err
