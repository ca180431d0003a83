"""Runs the trial's parts one after another, each in processes of its own and within its time; started by trial.sh."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import record
from warm import Forked

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Limits in seconds, the most valuable part first. Together they are more than the whole trial has: see `seconds_of`.
LIMITS = {
    "card": {"tests": 75, "works": 125, "fast": 150, "full": 130, "two": 75, "interrupted": 70, "whole_loop": 120},
    "cpu": {"tests": 60, "works": 150, "fast": 100, "full": 120, "two": 90, "interrupted": 120, "whole_loop": 100},
    "shortest": {"tests": 60, "works": 120, "fast": 60, "full": 120, "two": 90, "interrupted": 120, "whole_loop": 10},
}
TOTAL = {"card": 540, "cpu": 360, "shortest": 300}
#: Seconds between the request to end and the end of a part, and what is kept for that and for the last records.
GRACE, MARGIN = 5, 10
FILES = ("summary.json", "logs.tar.gz", "sheet.png", "pictures.png", "profiles.txt")


class Stopped(Exception):
    """Somebody ends the trial."""


def seconds_of(limit: int, left: float) -> int:
    """For how long a part may run: the lesser of its limit and what is left; 0 where less is left than a third of its limit.

    In less than that a part would import its libraries and end.
    """
    return min(limit, int(left)) if left >= limit / 3 else 0


def started(name: str, log: Path, warm: bool) -> subprocess.Popen[bytes] | Forked:
    """A part's process, which leads a group of its own."""
    if command := os.environ.get(f"TRIAL_PART_{name}"):
        arguments = ["bash", "-c", command]
    elif warm:
        return Forked(lambda: __import__(name).main(), log, {}, leads=True)
    else:
        arguments = [sys.executable, str(HERE / f"{name}.py")]
    with log.open("wb") as said:
        return subprocess.Popen(arguments, stdout=said, stderr=said, start_new_session=True)


def end(process: subprocess.Popen[bytes] | Forked) -> None:
    """Asks a part and all that it started to end, and makes them after some seconds."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def code_of(process: subprocess.Popen[bytes] | Forked, seconds: float) -> int:
    """The exit code of a part; 128 and the number of the signal that ended it, as a shell has it."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        code = record.TIMED_OUT
    finally:
        end(process)  # what it left behind too
    return code if code >= 0 else 128 - code


def busy() -> float:
    """Seconds of a processor that ended parts have taken: other work on the machine lengthens the clock's more than these."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def keep_logs(work: Path, out: Path) -> None:
    """Packs logs and results, of each log no more than its last megabyte."""
    for log in (work / "logs").glob("*.log"):
        if log.stat().st_size > 1_000_000:
            log.write_bytes(log.read_bytes()[-1_000_000:])
    unfinished = out / "logs.tmp"
    with tarfile.open(unfinished, "w:gz", encoding="utf-8") as packed:
        for name in ("logs", "results"):
            packed.add(work / name, name)
    unfinished.replace(out / "logs.tar.gz")


def parts(scale: str, began: float, out: Path, work: Path) -> bool:
    """Runs them all; whether all are well."""
    slower = int(os.environ.get("TRIAL_SLOWER", "1"))
    total = int(os.environ.get("TRIAL_SECONDS", TOTAL[scale])) * slower
    well = True
    for name, usual in LIMITS[scale].items():
        limit = int(os.environ.get(f"TRIAL_LIMIT_{name}", usual * slower))
        left = began + total - MARGIN - time.monotonic()
        seconds = seconds_of(limit, left)
        if not seconds:
            record.too_late(name, limit, f"of {total} s only {max(0, int(left))} were left, too few for a part of {limit} s")
            continue
        record.running(name)
        log, result = work / "logs" / f"{name}.log", work / "results" / f"{name}.json"
        os.environ["TRIAL_RESULT"] = str(result)
        start, before = time.monotonic(), busy()
        code = code_of(started(name, log, scale == "shortest"), seconds)
        took = {"seconds": round(time.monotonic() - start), "busy seconds": round(busy() - before, 1), "limit": seconds}
        well &= record.part(name, code, took, log, result)
        keep_logs(work, out)
    return well


def prepare(out: Path, work: Path) -> str:
    """Makes the folders, sets the environment of all parts, and starts the summary; returns the scale."""
    out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for name in ("logs", "results"):
        (work / name).mkdir()
    before = os.environ.get("PYTHONPATH")
    os.environ |= {
        "OUT": str(out), "TRIAL_WORK": str(work), "PYTHONPATH": f"{ROOT}:{before}" if before else str(ROOT),
        "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    os.chdir(ROOT)
    # In a process of its own, since who asks for a card's name takes some of its memory, until the end.
    begun = subprocess.run([sys.executable, str(HERE / "record.py")], stdout=subprocess.PIPE, encoding="utf-8")
    if begun.returncode:
        raise SystemExit(2)
    scale = os.environ["TRIAL_SCALE"] = begun.stdout.strip()
    if scale != "card":  # small sizes, and other work beside them: threads would only wait for one another
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is rehearsed uses no card that there may be
    return scale


def main() -> int:
    began = time.monotonic()

    def stop(number: int, _: object) -> None:
        raise Stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    out, work = Path(os.environ.get("OUT", HERE / "out")).absolute(), Path(tempfile.mkdtemp())
    try:
        scale = prepare(out, work)
        well = parts(scale, began, out, work)
        record.end(round(time.monotonic() - began))
    except Stopped:
        record.stopped()
        return 143
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
