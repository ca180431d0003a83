"""Runs the parts of the trial one after the other, each in a process of its own with a time limit.

A part that fails or runs out of time does not stop the next. What is known is written after every part, so that a trial that
is killed leaves its folder whole: ``summary.json`` (what ran, what failed with its last lines, versions, the card, its driver
and clocks), ``results.json`` (the numbers, by part), ``log.txt``, the sheet, and a profile where there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Seconds that the whole trial may take, and each part; the most valuable comes first.
ALL = 530
PARTS = {"tests": 60, "works": 130, "fast": 150, "full": 110, "pair": 40, "stopped": 70}
PACKAGES = ("torch", "triton", "pytorch-lightning", "transformers", "diffusers", "numpy")
QUERY = "name,driver_version,memory.total,clocks.sm,clocks.max.sm,clocks.mem,power.limit"


def card() -> dict[str, str]:
    """The card as nvidia-smi describes it; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return {}
    said = subprocess.run(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"], capture_output=True, text=True)
    values = said.stdout.splitlines()[0].split(", ") if said.returncode == 0 and said.stdout else []
    return dict(zip(QUERY.split(","), values, strict=False))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def command_of(part: str, short: bool) -> list[str]:
    """What runs a part; ``TRIAL_BREAK=part`` puts a command in its place that fails, for the tests of this script."""
    if os.environ.get("TRIAL_BREAK") == part:
        return [sys.executable, "-c", "print('about to break'); raise SystemExit('broken on purpose')"]
    if part == "tests":
        return [sys.executable, "-m", "pytest", "-m", "cuda", "-n", "0", "-rs", "--timeout=50", str(ROOT / "tests" / "cuda")]
    return [sys.executable, str(HERE / "parts" / f"{part}.py"), *(["--short"] if short else [])]


def run(part: str, limit: float, short: bool, out: Path, work: Path) -> dict[str, Any]:
    """Runs a part; returns its status, seconds and, where it failed, its last lines."""
    start = time.monotonic()
    said = work / f"{part}.log"
    environment = os.environ | {"TRIAL_WORK": str(work), "TRIAL_RESULTS": str(work / f"{part}.json"), "OUT": str(out)}
    with said.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(
            command_of(part, short), cwd=ROOT if part == "tests" else work, env=environment, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = None
    lines = said.read_text(encoding="utf-8", errors="replace").splitlines()
    with (out / "log.txt").open("a", encoding="utf-8") as log:
        log.write("\n".join([f"=== {part}", *lines[-400:], ""]))
    status = "out of time" if code is None else "passed" if code == 0 else "failed"
    if part == "tests" and code == 5:  # pytest's, for no tests
        status = "failed"
    told: dict[str, Any] = {"status": status, "seconds": round(time.monotonic() - start, 1)}
    if status != "passed":
        told["last lines"] = [line[:300] for line in lines[-15:]]
    elif part == "tests":
        told["said"] = lines[-1] if lines else ""
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="the shortest form of every part")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts only")
    args = parser.parse_args()
    out = Path(os.environ["OUT"]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    for name in ("log.txt", "results.json"):
        (out / name).unlink(missing_ok=True)
    work = Path(tempfile.mkdtemp(prefix="trial-"))
    summary: dict[str, Any] = {"card": card(), "versions": versions(), "short": args.short, "parts": {}}
    results: dict[str, Any] = {}
    start = time.monotonic()
    try:
        for part in args.only:
            left = ALL - (time.monotonic() - start)
            if left < 5:
                summary["parts"][part] = {"status": "not begun: no time was left"}
            else:
                summary["parts"][part] = run(part, min(PARTS[part] * (1 if summary["card"] else 4), left), args.short, out, work)
                kept = work / f"{part}.json"
                if kept.is_file():
                    results[part] = json.loads(kept.read_text(encoding="utf-8"))
            summary["seconds"] = round(time.monotonic() - start, 1)
            (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            (out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(f"{part}: {summary['parts'][part]['status']}", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    bad = [part for part, told in summary["parts"].items() if told["status"] != "passed"]
    print(f"{len(args.only) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
