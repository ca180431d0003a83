"""What this machine is and can do, as far as it bears on results and times."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

__all__ = ["machine", "multiplies_bfloat16"]


def machine(device: str) -> dict[str, Any]:
    """Versions and hardware, as far as they bear on results and times; nothing that identifies the machine."""
    names = ("torch", "pytorch-lightning", "transformers", "diffusers")
    kind = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    found = {"python": platform.python_version(), "device": kind, "threads": torch.get_num_threads()}
    found |= {name: version(name) for name in names}
    try:
        return found | {"numba": version("numba")}  # compiles the recurrence's kernels, where it is installed
    except PackageNotFoundError:
        return found


def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware multiplies in bfloat16, on a CPU faster than in float32.

    A CPU without such products takes 30 times as long. Intel's that have them in AVX-512 but not in AMX take twice as long
    (experiments/LOG.md). Told by what the CPU is and not by a stopwatch, so that all processes of a run, and those that it goes
    on in, agree.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    there = any(there for name, there in able.items() if "bf16" in name)
    return there and (able.get("amx_bf16", False) or "Intel" not in able.get("cpu_name", ""))
