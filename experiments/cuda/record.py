"""Keeps summary.json while the trial goes on: record.py begin | running NAME | part NAME CODE SECONDS LIMIT LOG | end SECONDS."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSION_OF = ("torch", "pytorch-lightning", "transformers", "diffusers", "hydra-core", "numpy", "triton", "huggingface-hub")
ASKED = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.mem", "clocks.max.sm", "temperature.gpu", "power.draw")
TAIL = 15


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
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = told.stdout.strip().splitlines()
    if told.returncode or not lines:
        return None
    return dict(zip(ASKED, (cell.strip() for cell in lines[0].split(",")), strict=False))


def begin() -> str:
    """Starts the summary, and gives the scale at which the trial runs."""
    import torch

    versions = {"python": platform.python_version(), "cuda": torch.version.cuda}
    for name in VERSION_OF:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    cuda = torch.cuda.is_available()
    scale = os.environ.get("TRIAL_SCALE") or ("card" if cuda else "cpu")
    if scale not in ("card", "cpu", "shortest"):
        sys.exit(f"TRIAL_SCALE is card, cpu or shortest; got {scale!r}.")
    if scale == "card" and not cuda:
        sys.exit("TRIAL_SCALE=card, but torch sees no CUDA here.")
    device = {"name": torch.cuda.get_device_name(), "count": torch.cuda.device_count()} if cuda else None
    write(
        {
            "state": "running", "scale": scale, "command": "bash experiments/cuda/trial.sh",
            "began": time.strftime("%Y-%m-%d"), "seconds": None, "versions": versions, "card": card(), "torch device": device,
            "cores": len(os.sched_getaffinity(0)), "threads": torch.get_num_threads(), "parts": {},
        }
    )  # fmt: skip
    return scale


def part(name: str, code: str, seconds: str, limit: str, log: str) -> bool:
    """Adds what became of a part; tells whether it is well."""
    summary = read()
    entry: dict[str, Any] = {"status": "skipped", "seconds": int(seconds), "limit": int(limit)}
    summary["parts"][name] = entry
    if code == "none":
        entry["reason"] = "no time was left"
        write(summary)
        return True
    result = Path(os.environ["TRIAL_WORK"]) / "results" / f"{name}.json"
    try:
        entry["result"] = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        entry["result"] = {}
    reason = entry["result"].pop("skipped", None)
    if code == "0":
        entry["status"] = "skipped" if reason else "passed"
        if reason:
            entry["reason"] = reason
    else:
        timed_out = code in ("124", "137")
        entry["status"], entry["code"] = ("timed out" if timed_out else "failed"), int(code)
        lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines() if Path(log).exists() else []
        entry["last lines"] = [line[:300] for line in lines if line.strip()][-TAIL:]
    entry["card after"] = card()
    write(summary)
    print(f"{name}: {entry['status']} in {seconds} s{': ' + reason if reason else ''}", flush=True)
    return code == "0"


def main() -> int:
    what, *rest = sys.argv[1:]
    if what == "begin":
        print(begin())
        return 0
    if what == "part":
        return 0 if part(*rest) else 1
    summary = read()
    if what == "running":
        summary["parts"][rest[0]] = {"status": "running"}
    elif what == "stopped":
        summary["state"] = "stopped"
    else:
        summary["seconds"] = int(rest[0])
        states = {entry["status"] for entry in summary["parts"].values()}
        summary["state"] = "failed" if states & {"failed", "timed out"} else "passed"
        print(f"{summary['state']} in {rest[0]} s: {summary_path()}")
    write(summary)
    return 0


if __name__ == "__main__":
    sys.exit(main())
