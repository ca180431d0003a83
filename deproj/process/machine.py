"""What this machine is and can do, as far as it bears on results and times."""

from __future__ import annotations

import platform
import time
from functools import cache
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

    A CPU without such products takes 30 times as long. Some that have them, Intel's with AVX-512 but no AMX, take twice as long.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    there = any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)
    return there and seconds_of_product(torch.bfloat16) < seconds_of_product(torch.float32)


@cache
def seconds_of_product(dtype: torch.dtype) -> float:
    """Of one of 512³, the best of five: 2 ms at 130 GFLOP/s."""
    square, best = torch.ones(512, 512, dtype=dtype), float("inf")
    for _ in range(6):  # the first one warms up
        began = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - began)
    return best
