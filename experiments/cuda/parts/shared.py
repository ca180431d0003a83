"""What the parts share: where they work, how they keep numbers, how they time and check."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
SHORT = "--short" in sys.argv
OUT, WORK = Path(os.environ["OUT"]), Path(os.environ["TRIAL_WORK"])
RESULTS = Path(os.environ["TRIAL_RESULTS"])
FOUND: dict[str, Any] = {}
WRONG: list[str] = []


def keep(name: str, value: Any) -> None:
    """Writes a number or a table at once: a part that is killed leaves what it has found."""
    FOUND[name] = value
    RESULTS.write_text(json.dumps(FOUND), encoding="utf-8")
    print(f"{name}: {value}", flush=True)


def check(holds: bool, what: str) -> None:
    """Notes what should hold and doesn't; the part goes on, and fails at its end."""
    print(f"{'ok' if holds else 'WRONG'}: {what}", flush=True)
    if not holds:
        WRONG.append(what)


def end() -> None:
    """Ends the part: with an error where a check has failed."""
    if WRONG:
        raise SystemExit("wrong: " + "; ".join(WRONG))


def deproj(command: str, *arguments: str, fails: bool = False) -> tuple[float, str]:
    """Runs a command of deproj in the working folder; returns its seconds and what it printed."""
    start = time.monotonic()
    ended = subprocess.run([sys.executable, "-m", f"deproj.{command}", *arguments], cwd=WORK, capture_output=True, text=True)
    print(ended.stdout[-3000:], ended.stderr[-3000:], flush=True)
    if (ended.returncode != 0) != fails:
        raise SystemExit(f"deproj.{command} {' '.join(arguments)} ended with {ended.returncode}: {ended.stderr[-500:]}")
    return time.monotonic() - start, ended.stdout + ended.stderr


def wait() -> None:
    if CUDA:
        torch.cuda.synchronize()


def timed(function: Callable[[], object], warm: int = 2, times: int = 5) -> tuple[float, float]:
    """Median seconds of a call, and the peak of the GPU's memory in MiB (nan on a CPU)."""
    for _ in range(warm):
        function()
    wait()
    if CUDA:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        wait()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() / 2**20 if CUDA else float("nan")
    return sorted(seconds)[len(seconds) // 2], peak


def furthest(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Largest difference of two tensors."""
    return float((ours.float().cpu() - theirs.float().cpu()).abs().max())


def table(rows: Sequence[dict[str, Any]], name: str) -> None:
    keep(name, list(rows))
