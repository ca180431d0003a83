"""A trial's folder as a page: that of a recorded rehearsal, and the same as if it had run on a card."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SPEC = importlib.util.spec_from_file_location("publish", ROOT / "experiments" / "cuda" / "publish.py")
assert SPEC is not None
assert SPEC.loader is not None
publish: Any = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(publish)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy of the files that are written."""
    for name in ("experiments/cuda/README.md", "docs/gpu.md"):
        (tmp_path / name).parent.mkdir(parents=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def recorded(folder: Path, **changes: Any) -> Path:
    """The recorded rehearsal with changes in its summary."""
    shutil.copytree(HERE / "recorded", folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (folder / "summary.json").write_text(json.dumps(summary | changes), encoding="utf-8")
    return folder


def test_a_rehearsal_gives_results_and_no_figures(root: Path):
    before = (root / "docs" / "gpu.md").read_text(encoding="utf-8")
    publish.publish(recorded(root / "out"), root)
    page = (root / "experiments" / "cuda" / "README.md").read_text(encoding="utf-8")
    summary = json.loads((root / "out" / "summary.json").read_text(encoding="utf-8"))
    assert "a rehearsal" in page
    for name, entry in summary["parts"].items():
        assert f"| **{name}** | {entry['status']} |" in page
        assert all(check["name"] in page for check in entry["result"].get("checks", []))
    assert "4, recursive, bf16" in page
    assert (root / "docs" / "gpu.md").read_text(encoding="utf-8") == before
    publish.publish(root / "out", root)
    assert (root / "experiments" / "cuda" / "README.md").read_text(encoding="utf-8") == page, "twice is once"


def test_a_card_takes_the_place_of_arithmetic(root: Path):
    device = {"name": "NVIDIA H100 80GB HBM3", "count": 1}
    out = recorded(
        root / "out", scale="card", card={"driver_version": "580.1", "clocks.sm": "345 MHz"}, **{"torch device": device}
    )
    publish.publish(out, root)
    docs = (root / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert "Measured on one NVIDIA H100 80GB HBM3" in docs
    assert "ms a training step of" in docs
    assert "10 TFLOP/s" not in docs
    assert docs.count("measured figures:") == 2
    assert "driver 580.1" in (root / "experiments" / "cuda" / "README.md").read_text(encoding="utf-8")


def test_a_trial_that_was_stopped_is_published_too(root: Path):
    parts = {"tests": {"status": "running"}}
    publish.publish(recorded(root / "out", state="stopped", seconds=None, parts=parts), root)
    assert "| **tests** | running |" in (root / "experiments" / "cuda" / "README.md").read_text(encoding="utf-8")


def test_a_folder_without_a_summary_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.argv", ["publish.py", str(tmp_path)])
    assert publish.main() == 1
    assert "holds no summary.json" in capsys.readouterr().err
