"""All that differs from one operating system to another: signals, memory, quoting, and files that others hold open.

Everything here works on every system, with less where a system offers less.
"""

from __future__ import annotations

import codecs
import ctypes
import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import platformdirs

__all__ = [
    *("END_SIGNALS", "TIME_SIGNALS", "WINDOWS"),
    *(
        "activation",
        "command_line",
        "give_back",
        "peak_memory",
        "print_any_script",
        "quoted",
        "replace",
        "user_cache",
        "wait_briefly",
    ),
]

#: Windows deletes and replaces no file that is open, and its shells quote in their own way.
WINDOWS = os.name == "nt"
#: Signals that end a command: Ctrl-C, and a polite kill.
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Signals by which SLURM and submitit announce the end of a job's time; Windows has none of them.
TIME_SIGNALS = tuple(getattr(signal, name) for name in ("SIGUSR1", "SIGUSR2") if hasattr(signal, name))
#: How often, and after how many seconds each time, Windows is asked again to replace a file that another process holds open.
ATTEMPTS, PAUSE = 20, 0.05


def user_cache() -> Path:
    """The folder of what deproj keeps for all runs of a user: ``~/.cache/deproj`` on Linux, or as the system has it."""
    return platformdirs.user_cache_path("deproj", appauthor=False)


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
    """An argument as it is typed in this system's shell; on Windows in cmd and in PowerShell."""
    if not WINDOWS:
        return shlex.quote(argument)
    if re.fullmatch(r"[\w.:/\\=+-]+", argument):
        return argument
    # backslashes are doubled before a quote, and stand for themselves elsewhere
    return '"' + re.sub(r'(\\*)("|\Z)', lambda m: 2 * m[1] + ('\\"' if m[2] else ""), argument) + '"'


def command_line(arguments: Sequence[str]) -> str:
    """A command as it is typed in this system's shell."""
    return " ".join(map(quoted, arguments))


def activation() -> str:
    """The command by which ``python`` becomes this environment's; empty where it is, and outside of environments."""
    own = Path(sys.executable).parent
    if sys.prefix == sys.base_prefix or Path(shutil.which("python") or "").absolute().parent == own:
        return ""
    script = own / ("Activate.ps1" if sys.platform == "win32" else "activate")
    if not script.is_file():
        return ""
    here = script.relative_to(Path.cwd()) if script.is_relative_to(Path.cwd()) else script
    return str(here) if sys.platform == "win32" else f"source {quoted(str(here))}"


def wait_briefly() -> None:
    """Has threads of libgomp, which torch computes with on Linux, fall asleep a tenth of a millisecond after their work.

    By default they wait for more for some milliseconds, awake, and keep the core from the other half of a batch
    (`deproj.model.recurrence.fused`) or from another process: a training step in the pixel world takes 73 ms instead of 80. It is
    read when torch is imported; a choice of the user's own stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def print_any_script() -> None:
    """Has what is printed in signs that the output's encoding lacks written as escapes, where Python would raise an error.

    So it is where the output goes to a file or a pipe, on Windows and in an ASCII locale. On stderr Python does it by itself.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="deproj.escape")


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    """What is written for signs that an encoding lacks: the bytes of a file's name as they are, escapes for all else."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.lookup_error("backslashreplace")(error)


codecs.register_error("deproj.escape", _escape)


def replace(source: Path, target: Path) -> None:
    """Renames a file over another one, or a folder to a free name.

    Raises:
        OSError: where that can't be done; on Windows also where a process holds one of the two open for a second.
    """
    for attempt in range(ATTEMPTS):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if not WINDOWS or attempt == ATTEMPTS - 1:
                raise
            time.sleep(PAUSE)
