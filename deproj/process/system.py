"""All that differs from one operating system to another: signals, memory, quoting, and files that others hold open.

Everything here works on every system, with less where a system offers less.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

__all__ = ["END_SIGNALS", "TIME_SIGNALS", "command_line", "give_back", "peak_memory", "quoted", "replace"]

#: Signals that end a command: Ctrl-C, and a polite kill.
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Signals by which SLURM and submitit announce the end of a job's time; Windows has none of them.
TIME_SIGNALS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
#: How often, and after how many seconds each time, Windows is asked again to replace a file that another process holds open.
ATTEMPTS, PAUSE = 20, 0.05


def trim() -> object:
    """glibc's function that returns free memory to the system; None where the C library is another."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


_trim = trim()


def give_back() -> None:
    """Returns free memory to the system, in 5 ms; without effect where the C library isn't glibc.

    glibc itself returns only what is at the end of its heap. Batches of ever other lengths leave holes before that, and
    over thousands of them the heap grows around these (experiments/scale).
    """
    if callable(_trim):
        _trim(0)


def peak_memory() -> float | None:
    """Most memory that this process has had at a time, in MiB; None where the system doesn't report it."""
    if sys.platform == "linux":  # getrusage would begin with the memory of the process that started this one
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    try:
        import resource  # Windows has none
    except ImportError:
        return None
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) / (2**20 if sys.platform == "darwin" else 2**10)


def quoted(argument: str) -> str:
    """An argument as it is typed in this system's shell."""
    return subprocess.list2cmdline([argument]) if os.name == "nt" else shlex.quote(argument)


def command_line(arguments: Sequence[str]) -> str:
    """A command as it is typed in this system's shell."""
    return " ".join(map(quoted, arguments))


def replace(source: Path, target: Path) -> None:
    """Renames a file over another one.

    Raises:
        OSError: where that can't be done; on Windows also where another process holds the target open for a second.
    """
    for attempt in range(ATTEMPTS):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if os.name != "nt" or attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE)
