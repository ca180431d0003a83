"""What this machine is and can do, as far as it bears on results and times."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any

import torch

__all__ = ["machine", "multiplies_bfloat16"]


def machine(device: str) -> dict[str, Any]:
    """Versions and hardware, as far as they bear on results and times; nothing that identifies the machine."""
    names = ("torch", "pytorch-lightning", "transformers", "diffusers")
    kind = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return {"python": platform.python_version(), "device": kind, "threads": torch.get_num_threads()} | {
        name: version(name) for name in names
    }


def multiplies_bfloat16(device: str) -> bool:
    """Whether the hardware has products in bfloat16. A CPU without them takes 30 times as long as in float32."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return any(there for name, there in torch.cpu.get_capabilities().items() if "bf16" in name)
