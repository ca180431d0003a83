"""Keeps summary.json while the trial goes on. As a command it begins the file and prints the scale."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSION_OF = ("torch", "pytorch-lightning", "transformers", "diffusers", "hydra-core", "numpy", "triton", "huggingface-hub")
ASKED = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw")
TAIL = 15
#: Exit code of what took too long, as `timeout` has it.
TIMED_OUT = 124


def summary_path() -> Path:
    return Path(os.environ["OUT"]) / "summary.json"


def read() -> dict[str, Any]:
    return json.loads(summary_path().read_text(encoding="utf-8"))


def write(summary: dict[str, Any]) -> None:
    path = summary_path()
    whole = path.with_suffix(".tmp")
    whole.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    whole.replace(path)


def card() -> dict[str, str] | None:
    """What nvidia-smi tells of the first card, or None where there is none."""
    try:
        told = subprocess.run(
            ["nvidia-smi", f"--query-gpu={','.join(ASKED)}", "--format=csv,noheader"],
            capture_output=True,
            encoding="utf-8",
            timeout=5,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = told.stdout.strip().splitlines()
    if told.returncode or not lines:
        return None
    return dict(zip(ASKED, (cell.strip() for cell in lines[0].split(",")), strict=False))


def begin() -> str:
    """Starts the summary, and gives the scale at which the trial runs."""
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for name in VERSION_OF:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    scale, device = os.environ.get("TRIAL_SCALE", ""), None
    if scale not in ("", "card", "cpu", "shortest"):
        sys.exit(f"TRIAL_SCALE is card, cpu or shortest; got {scale!r}.")
    if scale in ("", "card"):
        import torch  # takes seconds, and a rehearsal that was asked for needs to know of no card

        cuda = torch.cuda.is_available()
        if scale == "card" and not cuda:
            sys.exit("TRIAL_SCALE=card, but torch sees no CUDA here.")
        scale = "card" if cuda else "cpu"
        versions["cuda"] = torch.version.cuda
        if cuda:
            device = {"name": torch.cuda.get_device_name(), "count": torch.cuda.device_count()}
            with suppress(Exception):  # some builds are without it
                versions["nccl"] = ".".join(str(number) for number in torch.cuda.nccl.version())
    write(
        {
            "state": "running", "scale": scale, "command": "bash experiments/cuda/trial.sh", "began": time.strftime("%Y-%m-%d"),
            "seconds": None, "versions": versions, "card": card(), "torch device": device,
            "cores": len(os.sched_getaffinity(0)), "parts": {},
        }
    )  # fmt: skip
    return scale


def part(name: str, code: int, took: dict[str, float], log: Path, result: Path) -> bool:
    """Adds what became of a part; tells whether it is well."""
    summary = read()
    entry: dict[str, Any] = {"status": "passed", **took, "result": {}}
    summary["parts"][name] = entry
    with suppress(OSError, ValueError):
        entry["result"] = json.loads(result.read_text(encoding="utf-8"))
    reason = entry["result"].pop("skipped", None)
    if code:
        entry["status"], entry["code"] = "timed out" if code == TIMED_OUT else "failed", code
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        entry["last lines"] = [line[:300] for line in lines if line.strip()][-TAIL:]
    elif reason:
        entry["status"], entry["reason"] = "skipped", reason
    entry["card after"] = card()
    write(summary)
    print(f"{name}: {entry['status']} in {took['seconds']} s{': ' + reason if reason else ''}", flush=True)
    return code == 0


def too_late(name: str, limit: int, reason: str) -> None:
    """Adds a part that was not begun."""
    summary = read()
    summary["parts"][name] = {"status": "skipped", "seconds": 0, "limit": limit, "reason": reason, "result": {}}
    write(summary)
    print(f"{name}: skipped: {reason}", flush=True)


def running(name: str) -> None:
    summary = read()
    summary["parts"][name] = {"status": "running"}
    write(summary)


def stopped() -> None:
    """Says that the trial was stopped, where it had begun."""
    if summary_path().exists():
        write(read() | {"state": "stopped"})


def end(seconds: int) -> None:
    summary = read()
    states = {entry["status"] for entry in summary["parts"].values()}
    summary |= {"seconds": seconds, "state": "failed" if states & {"failed", "timed out"} else "passed"}
    write(summary)
    print(f"{summary['state']} in {seconds} s: {summary_path()}")


if __name__ == "__main__":
    print(begin())
