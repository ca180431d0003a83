"""The trial's rehearsal: its shortest form, and one of whose parts is broken on purpose."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

TRIAL = Path(__file__).parents[2] / "experiments" / "cuda"
PARTS = ["tests", "works", "fast", "full", "two", "interrupted", "whole_loop"]


def trial(out: Path, **environment: str) -> tuple[int, dict[str, Any]]:
    """Runs it at its shortest; its exit code and its summary."""
    given = {"OUT": str(out), "TRIAL_SCALE": "shortest", "TRIAL_SLOWER": "4", "CUDA_VISIBLE_DEVICES": ""} | environment
    code = subprocess.run(["bash", TRIAL / "trial.sh"], env=os.environ | given, capture_output=True).returncode
    return code, json.loads((out / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.timeout(900)
@pytest.mark.soak
def test_every_part_passes_or_says_why_not(tmp_path: Path):
    code, summary = trial(tmp_path / "out")
    said = {name: (entry["status"], entry.get("last lines")) for name, entry in summary["parts"].items()}
    assert code == 0, said
    assert list(said) == PARTS
    for name, entry in summary["parts"].items():
        assert entry["status"] in ("passed", "skipped"), said
        assert entry["status"] == "passed" or entry["reason"]
        assert all(check["said"] for check in entry["result"]["checks"]), name
    assert summary["state"] == "passed"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) <= 8
    assert all(path.stat().st_size <= 2**24 for path in files)
    assert {"summary.json", "logs.tar.gz", "sheet.png", "pictures.png", "profiles.txt"} == {path.name for path in files}


def test_a_broken_part_stops_no_other(tmp_path: Path):
    """Each part in place of which a command stands: one that fails, one that takes too long, others that are well."""
    others = {f"TRIAL_PART_{name}": "echo well" for name in PARTS}
    broken = {"TRIAL_PART_fast": "echo the card fell out >&2; exit 3", "TRIAL_PART_two": "sleep 100", "TRIAL_LIMIT_two": "2"}
    code, summary = trial(tmp_path, **others | broken)
    parts = summary["parts"]
    assert code == 1
    assert summary["state"] == "failed"
    assert (parts["fast"]["status"], parts["fast"]["code"], parts["fast"]["last lines"]) == ("failed", 3, ["the card fell out"])
    assert parts["two"]["status"] == "timed out"
    assert {parts[name]["status"] for name in PARTS if name not in ("fast", "two")} == {"passed"}


def test_a_trial_that_is_stopped_has_a_summary(tmp_path: Path):
    others = {f"TRIAL_PART_{name}": "echo well" for name in PARTS}
    others |= {"TRIAL_PART_works": f"touch {tmp_path}/begun; sleep 100", "OUT": str(tmp_path / "out"), "TRIAL_SCALE": "shortest"}
    process = subprocess.Popen(["bash", TRIAL / "trial.sh"], env=os.environ | others, stdout=subprocess.DEVNULL)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
    process.terminate()
    assert process.wait(60) == 143
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert summary["state"] == "stopped"
    assert [entry["status"] for entry in summary["parts"].values()] == ["passed", "running"]
