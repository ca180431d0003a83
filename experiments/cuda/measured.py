"""Runs a command of deproj, and writes how much memory its tensors took on the card: measured.py MODULE ARGUMENTS."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path


def run(module: str, arguments: Sequence[str]) -> int:
    """Calls the module's main function in this process; its exit code."""
    sys.argv = [module, *arguments]
    try:
        code = import_module(module).main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_allocated() / 2**20
            Path(os.environ["TRIAL_MEMORY"]).write_text(f"{peak:.0f}\n", encoding="utf-8")
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2:]))
