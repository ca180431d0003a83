"""What long work tells of itself: on a terminal one bar with the time left, in a file a line now and then.

    with progress.phase("encoding samples", total=10_000) as phase:
        for batch in batches:
            ...
            phase.advance(len(batch))

Work is handed a `Progress` and reports to it. The base class is silent, `BarProgress` is for a terminal and `LineProgress`
for a file; `progress_here` takes the one that fits. A phase within a phase is shown in its place, until it ends.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm import tqdm

__all__ = ["SILENT", "BarProgress", "LineProgress", "Phase", "Progress", "about", "duration", "progress_here"]

Clock = Callable[[], float]


class Phase:
    """A stretch of work.

    Attributes:
        title: what is happening, as in "encoding samples".
        total: units of work in all, or None where that is not known.
        done: of these.
        note: on where it stands, as in "epoch 3 of 6".
    """

    def __init__(self, progress: Progress, title: str, total: int | None, done: int) -> None:
        self.progress, self.title, self.total, self.done, self.note = progress, title, total, done, ""
        self.first, self.start = done, progress.clock()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Reports that so many units more are done."""
        self.done += count
        self.note = self.note if note is None else note
        self.progress.moved(self)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return self.progress.clock() - self.start

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take at the mean pace so far; None where nothing tells."""
        if self.total is None or self.done <= self.first:
            return None
        return self.seconds / (self.done - self.first) * max(self.total - self.done, 0)

    @property
    def share(self) -> float:
        """How much of the work is done, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def details(self) -> list[str]:
        """The note, and the time left; without a total, the time that has passed."""
        left = f"{duration(self.seconds)} so far" if self.total is None else about(self.left)
        return [text for text in (self.note, left) if text]


class Progress:
    """Where long work reports to. This class says nothing; its subclasses show it.

    Args:
        clock: seconds from any beginning.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.clock = clock

    @contextmanager
    def phase(self, title: str, total: int | None = None, done: int = 0) -> Iterator[Phase]:
        """A stretch of work, which ends with the block.

        Args:
            done: units that were done before, by the run that goes on.
        """
        phase = Phase(self, title, total, done)
        self.begun(phase)
        try:
            yield phase
        finally:
            self.ended(phase)

    def say(self, line: str) -> None:
        """Writes a line that stays."""

    def begun(self, phase: Phase) -> None: ...

    def moved(self, phase: Phase) -> None: ...

    def ended(self, phase: Phase) -> None: ...


#: For work that nobody watches.
SILENT = Progress()


class LineProgress(Progress):
    """Writes plain lines: each that is said, and one now and then on a phase that lasts.

    Args:
        label: what each line begins with, where several processes write to one place.
    """

    #: Seconds that pass without a line at least, and at most; in between, as many as the phase has lasted: a phase of an hour
    #: writes a dozen lines, and a short one none.
    SHORTEST, LONGEST = 10.0, 600.0

    def __init__(self, stream: TextIO, label: str = "", clock: Clock = time.monotonic) -> None:
        super().__init__(clock)
        self.stream, self.label, self.last = stream, label, clock()

    def say(self, line: str) -> None:
        self.last = self.clock()
        print(f"{self.label}: {line}" if self.label else line, file=self.stream, flush=True)

    def moved(self, phase: Phase) -> None:
        if phase.seconds >= self.SHORTEST and self.clock() - self.last >= min(phase.seconds, self.LONGEST):
            share = [] if phase.total is None else [f"{phase.share:.0%}"]
            self.say(f"{phase.title}: {', '.join([*share, *phase.details])}")


class BarProgress(Progress):
    """Draws one bar at the bottom of a terminal, anew every second: time passes even where the work reports nothing.

    While it is there, what is printed to the same terminal goes above it.

    Args:
        tick: seconds from one drawing to the next where nothing moves; 0 for none of these.
    """

    #: Seconds between two drawings at least.
    OFTEN = 0.2

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic, tick: float = 1.0) -> None:
        super().__init__(clock)
        self.stream, self.tick = stream, tick
        self.phases: list[Phase] = []
        self.lock = threading.RLock()  # a signal's handler may print while this draws
        self.drawn, self.width = 0.0, 0  # when, and how many columns, 0 where there is no bar
        self.unfinished = False  # whether somebody else is in the middle of a line
        self.asides: list[Aside] = []
        self.stopped = threading.Event()

    def begun(self, phase: Phase) -> None:
        with self.lock:
            self.phases.append(phase)
            if len(self.phases) == 1:
                self.open()
            self.draw()

    def moved(self, phase: Phase) -> None:
        if self.clock() - self.drawn >= self.OFTEN:
            self.draw()

    def ended(self, phase: Phase) -> None:
        with self.lock:
            self.phases.remove(phase)
            if self.phases:
                self.draw()
            else:
                self.clear()
                self.close()

    def say(self, line: str) -> None:
        with self.lock:
            self.clear()
            self.stream.write(f"{line}\n")
            self.draw()

    def open(self) -> None:
        """Lets others print above the bar, and time pass."""
        self.unfinished = False
        self.asides = [Aside(self, name) for name in ("stdout", "stderr") if on_terminal(getattr(sys, name))]
        self.stopped = threading.Event()
        if self.tick:
            threading.Thread(target=self.keep_drawing, args=(self.stopped,), daemon=True).start()

    def close(self) -> None:
        self.stopped.set()
        for aside in self.asides:
            aside.leave()

    def keep_drawing(self, stopped: threading.Event) -> None:
        while not stopped.wait(self.tick):
            with self.lock:
                if not stopped.is_set() and self.clock() - self.drawn >= self.tick / 2:
                    self.draw()

    def draw(self) -> None:
        """Draws the innermost phase in place of what is there."""
        with self.lock:
            if self.unfinished or not self.phases:
                return
            text = meter(self.phases[-1], columns(self.stream), speaks_unicode(self.stream))
            self.stream.write("\r" + text.ljust(self.width))
            self.stream.flush()
            self.drawn, self.width = self.clock(), len(text)

    def clear(self) -> None:
        """Takes the bar away."""
        if self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()
            self.width = 0


class Aside:
    """Stands in for a stream of `sys` that goes to the terminal with the bar: the bar gives way to what is written.

    It comes back when a line ends; so a bar of another's, which ends no line, takes its place.
    """

    def __init__(self, progress: BarProgress, name: str) -> None:
        self.progress, self.name, self.stream = progress, name, getattr(sys, name)
        setattr(sys, name, self)

    def write(self, text: str) -> int:
        with self.progress.lock:
            self.progress.clear()
            written: int = self.stream.write(text)
            if text:
                self.progress.unfinished = not text.endswith("\n")
            self.stream.flush()
            self.progress.draw()
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def leave(self) -> None:
        """Puts the stream back, unless somebody has put another there."""
        if getattr(sys, self.name) is self:
            setattr(sys, self.name, self.stream)


def progress_here(label: str = "", stream: TextIO | None = None) -> Progress:
    """The progress that fits a stream: a bar on a terminal, lines elsewhere.

    Args:
        label: of this process's lines, where several write to one terminal; with one, there is no bar.
        stream: stderr by default.
    """
    stream = stream or sys.stderr
    return BarProgress(stream) if on_terminal(stream) and not label else LineProgress(stream, label)


def on_terminal(stream: TextIO) -> bool:
    """Whether a stream goes to a terminal that can draw a line anew."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def columns(stream: TextIO) -> int:
    """Columns of a terminal but one: some break the line after the last."""
    try:
        return (os.get_terminal_size(stream.fileno()).columns or 80) - 1
    except (OSError, ValueError):
        return 79


def speaks_unicode(stream: TextIO) -> bool:
    try:
        "█▏".encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def meter(phase: Phase, width: int, unicode: bool) -> str:
    """A phase in one line of a terminal."""
    told = ", ".join(phase.details)
    if phase.total is None:
        return f"{phase.title}: {told}"[:width]
    drawn: str = tqdm.format_meter(
        phase.done, phase.total, max(phase.seconds, 0), ncols=width, prefix=phase.title, ascii=not unicode,
        bar_format="{desc}: {percentage:3.0f}%|{bar:30}| {told}", told=told,
    )  # fmt: skip
    return drawn.rstrip()


def duration(seconds: float) -> str:
    """Seconds as people say them: 33 s, 4 min 10 s, 2 h 5 min, 3 d 4 h."""
    whole = max(round(seconds), 0)
    for size, name, below, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // below
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"


def about(seconds: float | None) -> str:
    """A time left in words; none where nothing is left or nothing is known."""
    return "" if seconds is None or seconds < 0.5 else f"about {duration(seconds)} left"
