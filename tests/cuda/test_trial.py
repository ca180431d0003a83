"""The trial's rehearsal: its shortest form, and one of whose parts is broken on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the trial is for machines with Linux")
TRIAL = Path(__file__).parents[2] / "experiments" / "cuda"
PARTS = ["tests", "works", "fast", "full", "two", "interrupted", "whole_loop"]


def trial(out: Path, **environment: str) -> tuple[int, dict[str, Any]]:
    """Runs it at its shortest; its exit code and its summary."""
    given = {"OUT": str(out), "TRIAL_SCALE": "shortest", "TRIAL_SLOWER": "4", "CUDA_VISIBLE_DEVICES": ""} | environment
    code = subprocess.run(["bash", TRIAL / "trial.sh"], env=os.environ | given, capture_output=True).returncode
    return code, json.loads((out / "summary.json").read_text(encoding="utf-8"))


@pytest.mark.timeout(600)
def test_every_part_passes_or_says_why_not(tmp_path: Path):
    code, summary = trial(tmp_path / "out")
    said = {name: (entry["status"], entry.get("last lines")) for name, entry in summary["parts"].items()}
    failed = {name: entry for name, entry in said.items() if entry[0] not in ("passed", "skipped")}
    assert (code, failed) == (0, {})
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


@pytest.mark.parametrize("name", PARTS)
def test_a_broken_part_stops_no_other(name: str, tmp_path: Path):
    """In place of one part stands a command that fails, in place of the others one that is well."""
    others = {f"TRIAL_PART_{other}": "echo well" for other in PARTS}
    broken = {f"TRIAL_PART_{name}": "echo it began; echo the card fell out >&2; exit 3"}
    code, summary = trial(tmp_path, **others | broken)
    entry = summary["parts"].pop(name)
    assert (code, summary["state"]) == (1, "failed")
    assert (entry["status"], entry["code"], entry["last lines"]) == ("failed", 3, ["it began", "the card fell out"])
    assert [*summary["parts"]] == [other for other in PARTS if other != name]
    assert {other["status"] for other in summary["parts"].values()} == {"passed"}


def test_what_failed_within_a_part_is_told(tmp_path: Path):
    """Of a step that raises, and of a part that is killed, with what it had found before; a step that fails stops no other."""
    lines = ["from common import Part", "part = Part()", "with part.step('colour'):", "    raise ValueError('it is grey')"]
    lines += ["part.check('size', True, 'as it should be')", "raise SystemExit(part.end())"]
    (tmp_path / "part.py").write_text("\n".join(lines), encoding="utf-8")
    fails = f"PYTHONPATH=experiments/cuda {sys.executable} {tmp_path / 'part.py'}"
    given = {f"TRIAL_PART_{name}": "echo well" for name in PARTS}
    given |= {"TRIAL_PART_fast": fails, "TRIAL_PART_two": f"{fails}; kill -KILL $$"}
    code, summary = trial(tmp_path / "out", **given)
    fast, two = summary["parts"].pop("fast"), summary["parts"].pop("two")
    assert (code, fast["status"], fast["code"], two["status"], two["code"]) == (1, "failed", 1, "failed", 137)
    for entry in (fast, two):
        said = [(check["name"], check["state"], check["said"]) for check in entry["result"]["checks"]]
        assert said == [("colour", "failed", "ValueError: it is grey"), ("size", "passed", "as it should be")]
        assert "failed: colour: ValueError: it is grey" in entry["last lines"]
    assert {other["status"] for other in summary["parts"].values()} == {"passed"}


def test_the_whole_keeps_its_time(tmp_path: Path):
    """Parts that never end, one of which doesn't end when asked to: the rest are told to have found no time."""
    given = {f"TRIAL_PART_{name}": "sleep 100" for name in PARTS} | {"TRIAL_PART_works": "trap '' TERM; sleep 100; sleep 100"}
    given |= {f"TRIAL_LIMIT_{name}": "6" for name in PARTS} | {"TRIAL_SECONDS": "32", "TRIAL_SLOWER": "1"}
    start = time.monotonic()
    code, summary = trial(tmp_path, **given)
    assert time.monotonic() - start < 32
    states = [entry["status"] for entry in summary["parts"].values()]
    assert (code, [*summary["parts"]], summary["seconds"] <= 32) == (1, PARTS, True)
    assert states[:2] == ["timed out", "timed out"]
    assert states[-3:] == ["skipped"] * 3
    assert "of 32 s only" in summary["parts"]["whole_loop"]["reason"]


def test_a_part_has_the_lesser_of_its_limit_and_what_is_left():
    """Or nothing, where less is left than a third of its limit. Together the limits are more than the whole has."""
    code = "import trial; print(*(trial.seconds_of(60, left) for left in (500, 60.5, 59.9, 20, 19.9, -3)))"
    code += "; print(sum(trial.LIMITS['card'].values()) > trial.TOTAL['card'] == 540, list(trial.LIMITS['card']))"
    said = subprocess.run([sys.executable, "-c", code], cwd=TRIAL, capture_output=True, encoding="utf-8", check=True).stdout
    assert said.splitlines() == ["60 60 59 20 0 0", f"True {PARTS}"]


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
