"""What long work says: on a stand-in terminal, on a real pseudo terminal, and in a file. Time is handed in."""

from __future__ import annotations

import io
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import pytest
from conftest import on_terminal

from deproj.process.progress import SILENT, BarProgress, LineProgress, Progress, about, duration, progress_here


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that says it is a terminal, 80 columns wide, and shows what would stand on it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @contextmanager
    def here(self) -> Iterator[None]:
        """Stdout and stderr go to it."""
        with redirect_stdout(self), redirect_stderr(self):
            yield

    @property
    def screen(self) -> list[str]:
        """Its lines as a reader sees them."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for text in line.split("\r"):
                shown = text + shown[len(text) :]
            lines.append(shown.rstrip())
        return lines


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def work(progress: Progress, clock: Clock, seconds: float, count: int, title: str = "encoding samples") -> None:
    with progress.phase(title, count) as phase:
        for _ in range(count):
            clock.now += seconds
            phase.advance()


# --- In a file ------------------------------------------------------------------------------------


def test_short_work_writes_no_line(clock: Clock):
    file = io.StringIO()
    work(LineProgress(file, clock=clock), clock, 0.9, 10)
    assert file.getvalue() == ""


def test_a_line_says_what_is_happening_how_far_it_is_and_how_long_it_will_take(clock: Clock):
    file = io.StringIO()
    work(LineProgress(file, clock=clock), clock, 1, 15)
    assert file.getvalue() == "encoding samples: 67%, about 5 s left\n"


@pytest.mark.parametrize("hours", [1, 10])
def test_lines_of_long_work_are_few_and_never_far_apart(clock: Clock, hours: int):
    file = io.StringIO()
    work(LineProgress(file, clock=clock), clock, 1, 3600 * hours)
    lines = file.getvalue().splitlines()
    assert len(lines) <= 6 + 6 * hours
    assert len(lines) >= 6 * hours


def test_many_short_phases_write_no_line(clock: Clock):
    file = io.StringIO()
    progress = LineProgress(file, clock=clock)
    for _ in range(40):
        work(progress, clock, 1, 9)
    assert file.getvalue() == ""


def test_a_line_that_is_said_puts_off_the_next_one(clock: Clock):
    file = io.StringIO()
    progress = LineProgress(file, clock=clock)
    with progress.phase("training", 100) as phase:
        for _ in range(100):
            clock.now += 1
            phase.advance()
            if phase.done % 9 == 0:
                progress.say("epoch")
    assert file.getvalue() == "epoch\n" * 11


def test_a_label_begins_each_line(clock: Clock):
    file = io.StringIO()
    progress = LineProgress(file, "job 3", clock)
    work(progress, clock, 6, 4)
    progress.say("epoch 1")
    assert file.getvalue().splitlines() == [
        "job 3: encoding samples: 50%, about 12 s left",
        "job 3: epoch 1",
    ]


def test_work_of_unknown_length_says_how_long_it_has_taken(clock: Clock):
    file = io.StringIO()
    with LineProgress(file, clock=clock).phase("loading") as phase:
        clock.now += 75
        phase.advance(note="the text encoder")
    assert file.getvalue() == "loading: the text encoder, 1 min 15 s so far\n"


def test_time_left_counts_only_what_was_done_here(clock: Clock):
    """A run that goes on at 90 of 100 has not made 90 in no time."""
    with SILENT.phase("training") as _, LineProgress(io.StringIO(), clock=clock).phase("training", 100, done=90) as phase:
        assert phase.left is None
        clock.now += 10
        phase.advance(5)
        assert phase.left == 10
        assert phase.share == 0.95


# --- On a terminal --------------------------------------------------------------------------------


def test_one_bar_says_what_is_happening_and_goes(terminal: Terminal, clock: Clock):
    progress = BarProgress(terminal, clock, tick=0)
    with progress.phase("encoding samples", 10) as phase:
        clock.now += 8
        phase.advance(4)
        (shown,) = terminal.screen
        assert re.fullmatch(r"encoding samples:  40%\|█+[▏▎▍▌▋▊▉]? *\| about 12 s left", shown)
        assert len(shown) < 80
    assert terminal.screen == [""]


def test_a_phase_within_stands_in_the_place_of_the_outer_one(terminal: Terminal, clock: Clock):
    progress = BarProgress(terminal, clock, tick=0)
    with progress.phase("training", 10):
        with progress.phase("drawing", 4):
            assert terminal.screen[0].startswith("drawing:")
        assert terminal.screen[0].startswith("training:")
    assert "\n" not in terminal.getvalue()


def test_what_is_said_and_printed_stays_above_the_bar(terminal: Terminal, clock: Clock):
    progress = BarProgress(terminal, clock, tick=0)
    with terminal.here():
        with progress.phase("training", 10):
            progress.say("epoch 1 of 2")
            print("a message of ours")
            print("a message of a library's", file=sys.stderr)
            *above, last = terminal.screen
            assert above == ["epoch 1 of 2", "a message of ours", "a message of a library's"]
            assert last.startswith("training:")
        assert sys.stdout is sys.stderr is terminal
        print("after")
        assert terminal.screen == [*above, "after", ""]


def test_a_bar_of_a_librarys_takes_the_place_until_its_line_ends(terminal: Terminal, clock: Clock):
    """As the bar of a download does."""
    progress = BarProgress(terminal, clock, tick=0)
    with terminal.here(), progress.phase("loading") as phase:
        sys.stderr.write("\rmodel.safetensors: 40%")
        clock.now += 1
        phase.advance()
        assert terminal.screen == ["model.safetensors: 40%"]
        sys.stderr.write("\n")
        assert terminal.screen == ["model.safetensors: 40%", "loading: 1 s so far"]


def test_the_bar_goes_when_the_work_fails(terminal: Terminal, clock: Clock):
    with pytest.raises(ValueError, match="broken"), BarProgress(terminal, clock, tick=0).phase("training", 10):
        raise ValueError("broken")
    assert terminal.screen == [""]


def test_a_shorter_bar_leaves_nothing_of_a_longer_one(terminal: Terminal, clock: Clock):
    progress = BarProgress(terminal, clock, tick=0)
    with progress.phase("a very long title of what is happening", 10), progress.phase("short"):
        assert terminal.screen == ["short: 0 s so far"]


def test_it_is_drawn_five_times_a_second_at_most(terminal: Terminal, clock: Clock):
    work(BarProgress(terminal, clock, tick=0), clock, 0.001, 1000)
    assert terminal.getvalue().count("\r") < 10


def test_time_passes_on_a_terminal_where_the_work_reports_nothing(terminal: Terminal):
    with BarProgress(terminal, tick=0.01).phase("loading"):
        deadline = time.monotonic() + 10
        while terminal.getvalue().count("loading") < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    after = terminal.getvalue()
    time.sleep(0.05)
    assert terminal.getvalue() == after


def test_a_terminal_without_block_characters_gets_a_plain_bar(terminal: Terminal, clock: Clock):
    terminal.encoding = "ascii"
    with BarProgress(terminal, clock, tick=0).phase("training", 2) as phase:
        clock.now += 1
        phase.advance()
        assert terminal.getvalue().isascii()


# --- Which one ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("term", "label", "made"), [("xterm", "", BarProgress), ("dumb", "", LineProgress), ("xterm", "job 3", LineProgress)]
)
def test_a_terminal_gets_a_bar_unless_it_is_dumb_or_shared(terminal: Terminal, monkeypatch, term: str, label: str, made: type):
    monkeypatch.setenv("TERM", term)
    with terminal.here():
        assert type(progress_here(label)) is made


def test_a_file_gets_lines():
    assert type(progress_here(stream=io.StringIO())) is LineProgress


PROGRAM = """
import sys, time, warnings
from deproj.process.progress import progress_here
progress = progress_here()
with progress.phase("encoding samples", 20) as phase:
    for k in range(20):
        time.sleep(0.02)
        phase.advance()
        if k == 10:
            print("in between")
            warnings.warn("matters")
print("done")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo terminals are of Unix")
def test_on_a_pseudo_terminal():
    said = on_terminal("-c", PROGRAM)
    seen = Terminal()
    seen.write(said.replace("\r\n", "\n"))
    first, warning, *rest = seen.screen
    assert first == "in between"
    assert "matters" in warning
    assert rest == ["done", ""]
    assert re.search(r"\rencoding samples: +\d+%\|█", said)


# --- Words ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (33.4, "33 s"), (59.6, "1 min"), (250, "4 min 10 s"), (3600, "1 h"), (7530, "2 h 5 min"), (273_900, "3 d 4 h")],
)
def test_durations_are_said_as_people_say_them(seconds: float, said: str):
    assert duration(seconds) == said


def test_nothing_left_is_not_said():
    assert about(None) == about(0.2) == ""
    assert about(33) == "about 33 s left"
