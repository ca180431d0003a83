"""Processes split off from one that has imported the libraries, for the shortest rehearsal.

Importing them anew takes ten seconds. A card's trial has none of these: CUDA can't be used in a process that was split off, and
users start their commands anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

__all__ = ["Forked", "fork_here"]

ROOT = str(Path(__file__).resolve().parents[2])


LIBRARIES = [f"deproj.{name}" for name in ("train", "evaluate", "measure.evaluator", "fullsize", "speed.peers", "pipeline")]
LIBRARIES += [f"deproj.training.{name}" for name in ("finish", "parts", "place", "trainer", "checkpoints", "graphs")]
DIFFUSERS = ("AutoencoderKL", "StableDiffusionPipeline", "UNet2DConditionModel")
TRANSFORMERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "CLIPVisionModelWithProjection", "CLIPTokenizerFast")


def fork_here() -> bool:
    """Whether commands are split off here."""
    return os.environ.get("TRIAL_SCALE") == "shortest"


def libraries() -> None:
    """Imports what every part wants, once in this process."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads don't survive the splitting
    if ROOT not in sys.path:
        sys.path.insert(1, ROOT)  # PYTHONPATH is for the processes that are started anew
    for name in LIBRARIES:
        import_module(name)
    import diffusers
    import transformers

    for owner, names in ((diffusers, DIFFUSERS), (transformers, TRANSFORMERS)):
        for name in names:
            getattr(owner, name)  # is imported when it is asked for


class Forked:
    """A function's process, with the methods of ``subprocess.Popen`` that the trial uses.

    Args:
        function: whose return value is the exit code.
        log: takes what it says.
        environment: set in that process alone.
        leads: whether it leads a session, and so a group of processes, of its own.
    """

    def __init__(self, function: Callable[[], int], log: Path, environment: Mapping[str, str], leads: bool = False) -> None:
        with suppress(Exception):  # the part that wants what is missing tells of it
            libraries()
        sys.stdout.flush()
        sys.stderr.flush()
        self.code: int | None = None
        self.pid = os.fork()
        if not self.pid:
            os._exit(self.live(function, log, environment, leads))

    @staticmethod
    def live(function: Callable[[], int], log: Path, environment: Mapping[str, str], leads: bool) -> int:
        """The split-off process's life; its exit code."""
        code: object = 1
        try:
            if leads:
                os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.default_int_handler)
            said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o644)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.environ |= environment
            code = function()
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        return code if isinstance(code, int) else int(code is not None)

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, seconds: float | None = None) -> int:
        end = time.monotonic() + (float("inf") if seconds is None else seconds)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a part", seconds or 0)
            time.sleep(0.01)
        assert self.code is not None
        return self.code

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)
