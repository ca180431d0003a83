"""Disks that are full, names that are too long, and runs behind links: a line each, and nothing half-written."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import Ended, call, linux_only

from deproj.runs.folder import RunFolder

Train = Callable[..., Ended]


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """A limit on the size of files stands for a full disk: writing fails in the same way, in the middle of a file."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def told(ended: Ended) -> bool:
    """Whether a command has ended with a line or two and no traceback."""
    lines = [line for line in ended.err.splitlines() if line.startswith("error: ")]
    return ended.code not in (0, None) and "Traceback" not in ended.err + ended.out and len(lines) <= 1


@linux_only
def test_a_full_disk_in_a_sweep(train: Train, tmp_path: Path):
    with full_after(300_000):
        ended = train("-m", "seed=1,2", "data.keep=tokens", "hydra.sweep.dir=sweep")
    assert told(ended), ended
    assert ended.err.count("the weights could not be written; is the disk full?") == 2
    with (tmp_path / "sweep" / "sweep.csv").open(encoding="utf-8", newline="") as file:
        assert [row["state"] for row in csv.DictReader(file)] == ["failed", "failed"]
    assert not [path for path in (tmp_path / "sweep").rglob("*") if path.name.endswith((".tmp", ".ckpt"))]


@linux_only
def test_a_disk_so_full_that_no_state_is_noted(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nor the log."""
    monkeypatch.chdir(tmp_path)
    with full_after(0):
        ended = train("-m", "seed=1,2", "hydra.sweep.dir=sweep")
    assert told(ended), ended


@linux_only
@pytest.mark.parametrize("keep", ["states", "tokens"])
def test_a_full_disk_of_caches(train: Train, tmp_path: Path, keep: str):
    with full_after(6000):
        ended = train("data.cache=caches", f"data.keep={keep}", "data.size=600", "hydra.run.dir=run")
    assert told(ended), ended
    assert "Set data.cache= to a folder with room" in ended.err
    assert [path.suffix for path in (tmp_path / "caches").rglob("*") if path.is_file()] == [".lock"]


@linux_only
def test_a_full_disk_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from deproj.generate.__main__ import main

    monkeypatch.chdir(tmp_path)
    with full_after(500):
        ended = call(main, ["all-batch", "cat", "--sampler-steps", "1", "--out", "out"], monkeypatch, capsys)
    assert told(ended), ended
    assert "out. Make room or name another folder." in ended.err
    assert not (tmp_path / "out").exists(), "nothing is left, the folder neither"


@pytest.mark.parametrize("argument", ["hydra.run.dir=", "resume=", "init_from=", "data.prompts="])
def test_names_that_are_too_long(argument: str, train: Train, tmp_path: Path):
    ended = train(f"{argument}{'x' * 300}")
    assert told(ended), ended
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="makes symbolic links")
def test_runs_behind_links_and_reports_on_a_full_disk(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from deproj.evaluate import main as evaluate
    from deproj.report.__main__ import main as report

    assert train("evaluate=2", "sd.steps=2", "hydra.run.dir=elsewhere/run").code == 0
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere" / "run")
    (tmp_path / "runs" / "circle").symlink_to(tmp_path / "runs")
    (tmp_path / "elsewhere" / "run" / "back").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "broken").symlink_to(tmp_path / "nowhere")
    assert [run.path for run in RunFolder.under(Path("runs"))] == [Path("runs/linked")]

    shown = call(report, ["runs", "--out", "page", "--seeds", "0"], monkeypatch, capsys)
    assert shown.code == 0, shown
    assert "1 setting. Wrote" in shown.out
    measured = call(evaluate, ["runs/linked", "--count", "2"], monkeypatch, capsys)
    assert measured.code == 0, measured
    for given in ("runs/linked", "runs/linked/checkpoints/last.ckpt"):
        shutil.rmtree(tmp_path / "elsewhere" / "run" / "deprojector")
        (tmp_path / "elsewhere" / "run" / "result.json").unlink()
        again = train(f"resume={given}", defaults=False)
        assert again.code == 0, again
        assert (tmp_path / "elsewhere" / "run" / "result.json").is_file()

    with full_after(10_000):
        full = call(report, ["runs", "--out", "full", "--seeds", "0"], monkeypatch, capsys)
    assert told(full), full
    assert "full. Make room or name another folder." in full.err
    assert not [path for path in (tmp_path / "full").rglob("*") if path.suffix in (".tmp", ".html", ".json")]
