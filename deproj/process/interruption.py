"""Ctrl-C, SIGTERM and, on SLURM, the signal before the time is up: training stops with a checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from types import FrameType
from typing import Any

from deproj.process.system import END_SIGNALS, TIME_SIGNALS

__all__ = ["Interrupted", "Interruption"]


class Interrupted(BaseException):
    """What a signal raises: no error, and nothing that a handler of errors may swallow.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interruption:
    """Handles signals within a ``with`` block.

    While `patient`, a first signal is only noted in `received`, for training to stop at the end of a batch; at any
    other time, and from the second signal on, `Interrupted` is raised on the spot.

    On SLURM the signals that announce the end of a job's time (``--signal=USR1@90``; submitit's USR2) stop training too, and
    `requeue` puts the job back in the queue.

    Args:
        silent: whether nothing is printed, as in a process beside another that prints it.
    """

    def __init__(self, silent: bool = False) -> None:
        self.silent = silent
        self.received: int | None = None
        self.patient = False
        self.before: dict[int, Any] = {}

    @property
    def numbers(self) -> tuple[int, ...]:
        """The signals that are handled here."""
        return END_SIGNALS + TIME_SIGNALS if "SLURM_JOB_ID" in os.environ else END_SIGNALS

    def __enter__(self) -> Interruption:
        self.before = {number: signal.getsignal(number) for number in self.numbers}
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Sets the handlers; once more where a library has put others in their place."""
        for number in self.numbers:
            signal.signal(number, self.handle)

    def handle(self, number: int, frame: FrameType | None) -> None:
        if not self.patient or self.received is not None:
            raise Interrupted(number)
        self.received = number
        if not self.silent:
            print(f"\n{signal.Signals(number).name}: stopping after this batch (again to stop at once).", file=sys.stderr)

    def requeue(self, number: int) -> None:
        """Puts a SLURM job back in the queue, after a signal that announces the end of its time; does nothing after any other."""
        if number not in TIME_SIGNALS:
            return
        launcher = self.before[number]
        if callable(launcher):  # submitit's, which requeues with the arguments of the job
            launcher(number, None)
            return
        array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
        job = f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]
        try:
            ended = subprocess.run(["scontrol", "requeue", job], capture_output=True, encoding="utf-8", errors="replace")
        except OSError as error:  # in a container without SLURM's commands, for example
            print(f"SLURM job {job} could not be requeued: scontrol: {error.strerror}.")
            return
        print(f"SLURM job {job} requeued." if ended.returncode == 0 else f"scontrol requeue {job}: {ended.stderr.strip()}")
