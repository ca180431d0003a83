"""``deproj.runs``: what it lists of runs and sweeps, and how quickly."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, call

from deproj.process.errors import UserError
from deproj.process.files import alone
from deproj.runs.__main__ import main
from deproj.runs.folder import RunFolder
from deproj.runs.listing import Listed, best_first, listed, table
from deproj.runs.records import JobRecord

Train = Callable[..., Ended]
RUNS = Path(__file__).parents[1] / "experiments" / "recursive_input" / "runs"


def test_offline_runs_are_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    folders = [Path(f"runs/{name}/wandb/offline-run-2026-{name}") for name in ("one", "two", "sent")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / f"run-{folder.name}.wandb").touch()
    (folders[2] / f"run-{folders[2].name}.wandb.synced").touch()
    asked: list[str] = []

    def sent(command: list[str]) -> subprocess.CompletedProcess[bytes]:
        asked.append(command[-1])
        return subprocess.CompletedProcess(command, int(command[-1].endswith("two")))

    monkeypatch.setattr("deproj.runs.__main__.subprocess.run", sent)
    monkeypatch.setattr(sys, "argv", ["runs", "--sync"])
    assert main() == 1
    assert asked == [str(folder) for folder in folders[:2]]
    assert f"{folders[1]} was not sent" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["runs", "--sync", str(folders[0].parents[1])])
    assert main() == 0
    assert "Sent 1 offline run." in capsys.readouterr().out


def test_states_settings_and_measures(train: Train, tmp_path: Path):
    assert train("hydra.run.dir=runs/whole", "evaluate=2", "sd.steps=1").code == 0
    assert train("-m", "seed=0,1", "selection=all", "hydra.sweep.dir=sweeps/two", "data.parts=2").code == 0
    whole, jobs = RunFolder(Path("runs/whole")), Path("sweeps/two")
    shutil.copytree(whole.path, "runs/stopped")
    RunFolder(Path("runs/stopped")).result.unlink()
    RunFolder(jobs / "1-seed=1").result.unlink()
    job = RunFolder(jobs / "1-seed=1").job
    job.write_text(job.read_text(encoding="utf-8").replace('"done"', '"killed"'), encoding="utf-8")
    shutil.copytree(whole.path, "runs/broken")
    Path("runs/broken/config.yaml").write_text("{", encoding="utf-8")
    rows = {row.run.path.as_posix(): row for row in listed([Path("runs"), Path("sweeps"), Path("runs")])}
    assert {name: row.state for name, row in rows.items()} == {
        "runs/broken": "unreadable", "runs/stopped": "interrupted", "runs/whole": "done", "sweeps/two/0-seed=0": "done",
        "sweeps/two/1-seed=1": "killed",
    }  # fmt: skip
    done = rows["runs/whole"]
    assert (done.epochs, done.loss) == ("1", whole.read_result().val_loss)
    values = whole.read_evaluation().values
    assert done.measures == (values["composed/fidelity"], values["composed/conditioning_error"])
    assert rows["runs/stopped"].epochs == "1 of 1"
    lines = table(list(rows.values())).splitlines()
    assert "sweeps/two: 2 jobs, 1 done, 1 killed; all with data.parts=2" in lines
    (first,) = (line for line in lines if line.startswith("  0-seed=0 "))
    assert "all, recursive, seed=0" in first
    assert "data.size" not in first, "which all share"


def test_one_at_work_is_running(train: Train, tmp_path: Path):
    assert train("hydra.run.dir=run").code == 0
    run = RunFolder(tmp_path / "run")
    with alone(run.lock):
        code = f"from deproj.runs.listing import state_of, RunFolder, Path; print(state_of(RunFolder(Path({str(run.path)!r}))))"
        assert "running" in subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout


def test_a_failed_run_says_why_until_it_goes_on(train: Train, tmp_path: Path):
    run = RunFolder(tmp_path / "run")
    assert train("hydra.run.dir=run", "optimizer.learning_rate=1e30").code == 1
    (row,) = listed([tmp_path])
    assert row.state == "failed"
    assert "nan" in row.why.lower() or "finite" in row.why
    assert row.why == run.error.read_text(encoding="utf-8")
    assert row.why in table([row])
    run.config.unlink()
    assert train("hydra.run.dir=run").code == 0
    assert listed([tmp_path])[0].state == "done"
    assert not run.error.exists()


def test_a_hundred_in_three_seconds(tmp_path: Path):
    one = sorted(RUNS.iterdir())[0]
    for number in range(100):
        shutil.copytree(one, tmp_path / "runs" / str(number))
    before = sorted(tmp_path.rglob("*"))
    begun = time.perf_counter()
    code = "import sys; from deproj.runs.__main__ import main; assert main() == 0; assert 'torch' not in sys.modules"
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True).stdout
    assert time.perf_counter() - begun < 3
    assert "runs: 100 runs, 100 done" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_job_that_never_began_is_told_as_the_others(tmp_path: Path):
    settings = {"selection": "all", "feed": "batch", "model": "lstm", "seed": 0, "data.size": "200", "data.split": "7"}
    settings |= {"optimizer.learning_rate": "1e-3", "trainer.patience": "1e1", "data.column": "off", "data.held_out": "200"}
    settings |= {"init_from": "runs/before", "sd.clip_skip": "2", "sd.steps": "9"}
    run = RunFolder(tmp_path / "1-split=7")
    run.write(run.job, JobRecord(1, settings | {"logger": "tensorboard", "evaluate": "2", "render": "off"}, "failed", "too much"))
    (row,) = listed([tmp_path])
    differ = {"data.size": 200, "data.split": 7, "data.column": "off", "init_from": "runs/before", "sd.clip_skip": 2}
    differ |= {"trainer.patience": 10.0}
    assert row.settings == {"selection": "all", "feed": "batch", "seed": 0} | differ, (
        "held_out and learning_rate are the usual ones"
    )


def test_nothing_to_list_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    assert "no runs/ and sweeps/ here" in call(main, [], monkeypatch, capsys).err
    assert "no folder nowhere" in call(main, ["nowhere"], monkeypatch, capsys).err
    assert "no runs in ." in call(main, ["."], monkeypatch, capsys).err
    with pytest.raises(UserError):
        listed([tmp_path / "nowhere"])


def listed_as(
    settings: dict[str, object], loss: float | None, measures: tuple[float | None, float | None] = (None, None)
) -> Listed:
    return Listed(RunFolder(Path("runs") / str(settings)), Path("runs"), "done", dict(settings), loss=loss, measures=measures)


def test_losses_of_several_selections_order_nothing():
    one, other = {"selection": "all", "feed": "batch"}, {"selection": "eos_onward", "feed": "batch"}
    rows = [listed_as(one, 0.5), listed_as(other, 0.1)]
    assert best_first(rows) == rows
    rows = [listed_as(one, 0.5), listed_as(one | {"seed": 1}, 0.1)]
    assert best_first(rows) == rows[::-1]
    rows = [listed_as(one, 0.1), listed_as(other, 0.5, (0.9, 0.2))]
    assert best_first(rows) == rows[::-1], "what is measured comes first"
    rows = [listed_as(one, 0.1, (0.9, 0.3)), listed_as(other, 0.5, (0.9, 0.2))]
    assert best_first(rows) == rows[::-1], "of equal fidelity by conditioning error"
    partly = [listed_as(one, 0.1, measures) for measures in ((None, 0.1), (0.0, 0.5), (0.9, None), (0.9, 0.3))]
    assert best_first(partly) == [partly[3], partly[2], partly[1], partly[0]], "what isn't measured isn't the best there is"
    same = [one | {"objective.pool": 4, "selection.of": [1, 2]}, one | {"selection.of": [1, 2], "objective.pool": 8, "seed": 1}]
    rows = [listed_as(same[0], 0.5), listed_as(same[1], 0.1), Listed(RunFolder(Path("x")), Path("."), "failed", {"seed": "2"})]
    assert best_first(rows) == [rows[1], rows[0], rows[2]], "what has failed, and what isn't weighed, is no other loss"


def test_what_the_runs_of_a_folder_share_stands_above_them():
    base = {"selection": "all", "feed": "batch", "data.size": 1000}
    rows = [listed_as(base | {"seed": seed}, 0.1) for seed in (0, 1)]
    rows.append(Listed(RunFolder(Path("sweeps/a/0")), Path("sweeps/a"), "done", {"selection": "all", "feed": "batch", "seed": 0}))
    lines = table(rows).splitlines()
    assert "runs: 2 runs, 2 done; all with data.size=1000" in lines
    assert [line.split("done", 1)[1].split("0.1")[0].strip() for line in lines if line.startswith("  {")] == [
        "all, batch, seed=0",
        "all, batch, seed=1",
    ]
