"""What the parts of the trial share: their sizes, their results, and commands run as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measured
from warm import Forked, fork_here

__all__ = ["CARD", "OUT", "SCALE", "SHORTEST", "WORK", "Command", "Part", "pick"]

HERE = Path(__file__).resolve().parent
SCALE = os.environ.get("TRIAL_SCALE", "cpu")
CARD, SHORTEST = SCALE == "card", SCALE == "shortest"
WORK = Path(os.environ.get("TRIAL_WORK", "/tmp"))
OUT = Path(os.environ.get("OUT", HERE / "out"))


def pick(card: Any, cpu: Any, shortest: Any) -> Any:
    """The number for the scale at which the trial runs."""
    return {"card": card, "cpu": cpu, "shortest": shortest}[SCALE]


class Part:
    """The results of one part, written after each of them so that a part that is killed still has some.

    A result is a check (passed, failed or skipped, with a line that says of what) or a note (numbers by name).
    """

    def __init__(self) -> None:
        self.path = Path(os.environ["TRIAL_RESULT"])
        self.found: dict[str, Any] = {"checks": [], "notes": {}}
        self.write()

    def write(self) -> None:
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text(json.dumps(self.found, indent=1), encoding="utf-8")
        unfinished.replace(self.path)

    def note(self, name: str, value: Any) -> None:
        print(f"{name}: {str(value)[:200]}")  # the last lines of a log are for what failed
        self.found["notes"][name] = value
        self.write()

    def check(self, name: str, passed: bool, said: str) -> None:
        state = "passed" if passed else "failed"
        print(f"{state}: {name}: {said}")
        self.found["checks"].append({"name": name, "state": state, "said": said})
        self.write()

    def skip(self, name: str, reason: str) -> None:
        print(f"skipped: {name}: {reason}")
        self.found["checks"].append({"name": name, "state": "skipped", "said": reason})
        self.write()

    def skip_all(self, reason: str) -> None:
        """Says that nothing of this part runs."""
        self.found["skipped"] = reason
        self.write()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step whose exception is a failed check, and no end of the part."""
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            said = (str(error).strip().splitlines() or [""])[0].replace(f"{WORK}/", "")
            self.check(name, False, f"{type(error).__name__}: {said[:300]}")
        print(f"[{name}: {time.perf_counter() - start:.1f} s]", flush=True)

    def end(self) -> int:
        """The exit code."""
        return int(any(check["state"] == "failed" for check in self.found["checks"]))


@dataclass
class Ended:
    """A command that has ended.

    Attributes:
        seconds: by the clock, imports included.
        peak_mib: the most memory that tensors took on the card, or None without one.
    """

    code: int
    said: str
    seconds: float
    peak_mib: float | None

    def whole(self) -> Ended:
        """Raises unless it ended well."""
        if self.code:
            raise RuntimeError(f"exit code {self.code}: {last_line(self.said)}")
        return self


def last_line(text: str) -> str:
    """What was said last, with the trial's own files named within its folder, which is deleted."""
    return ([line for line in text.splitlines() if line.strip()] or [""])[-1].replace(f"{WORK}/", "")[:300]


class Command:
    """A command of deproj in a process of its own, as ``python -m MODULE ARGUMENTS``, its memory on the card measured."""

    def __init__(self, module: str, *arguments: str, cpu: bool = False, threads: int | None = None) -> None:
        self.said = WORK / "logs" / f"{time.time_ns()}-{module.rpartition('.')[2]}.log"
        self.said.parent.mkdir(parents=True, exist_ok=True)
        self.memory = self.said.with_suffix(".memory")
        environment = {"TRIAL_MEMORY": str(self.memory)}
        if cpu:
            environment["CUDA_VISIBLE_DEVICES"] = ""
        if threads:
            environment["OMP_NUM_THREADS"] = str(threads)
        print("$ python -m", module, *arguments, "(without the card)" if cpu and CARD else "", flush=True)
        self.start = time.perf_counter()
        self.process: subprocess.Popen[bytes] | Forked
        if fork_here():
            self.process = Forked(lambda: measured.run(module, arguments), self.said, environment)
            return
        called = [sys.executable, str(HERE / "measured.py"), module, *arguments]
        with self.said.open("w", encoding="utf-8") as out:
            self.process = subprocess.Popen(called, stdout=out, stderr=out, env=os.environ | environment)

    def wait(self) -> Ended:
        code = self.process.wait()
        seconds = time.perf_counter() - self.start
        said = self.said.read_text(encoding="utf-8", errors="replace")
        print(said[-3000:], flush=True)
        peak = None
        with suppress(OSError, ValueError):
            peak = float(self.memory.read_text(encoding="utf-8"))
        return Ended(code, said, seconds, peak)
