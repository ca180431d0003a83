"""Part 5: interrupted. SIGTERM in the middle of an epoch, resumed, against the undisturbed run; and a memory that is full."""

from __future__ import annotations

import csv
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from common import CARD, WORK, Command, Part, pick
from safetensors.torch import load_file

SIZE, BATCH = pick((6000, 30), (300, 10), (180, 10))
STEPS = SIZE // BATCH
#: In the shortest form two epochs would end within a second of the signal, which a busy machine may send later than that.
EPOCHS = pick(2, 2, 4)
SETTINGS = [
    f"data.size={SIZE}",
    f"data.batch_size={BATCH}",
    "data.held_out=10",
    f"trainer.max_epochs={EPOCHS}",
    "trainer.progress=false",
]
SETTINGS += ["render=off", "evaluate=0", f"data.cache={WORK}/cache-interrupted/samples"]
#: Wide enough that a batch of 100,000 can't be trained on any card of today: the gates alone take 250 GB.
TOO_LARGE = ["data.size=100000", "data.batch_size=100000", "model.hidden=2048", "data.keep=tokens", "data.held_out=20"]


def step_of(run: Path) -> int:
    """The last step in metrics.csv."""
    with suppress(OSError, ValueError, KeyError, IndexError), (run / "metrics.csv").open(encoding="utf-8", newline="") as lines:
        return max(int(row["step"]) for row in csv.DictReader(lines) if row["step"])
    return 0


def interrupt(part: Part) -> None:
    whole, cut = WORK / "whole", WORK / "cut"
    Command("deproj.train", *SETTINGS, f"hydra.run.dir={whole}").wait().whole()
    command = Command("deproj.train", *SETTINGS, f"hydra.run.dir={cut}")
    while command.process.poll() is None and step_of(cut) < STEPS:  # in the second epoch, long before its end
        time.sleep(0.02)
    seen = step_of(cut)
    command.process.send_signal(signal.SIGTERM)
    ended = command.wait()
    part.check("SIGTERM ends a run with 143", ended.code == 143, f"exit code {ended.code} after step {seen} of {EPOCHS * STEPS}")
    Command("deproj.train", f"resume={cut}").wait().whole()
    one, other = (load_file(run / "deprojector" / "model.safetensors") for run in (whole, cut))
    off = max(float((value.double() - other[name].double()).abs().max()) for name, value in one.items())
    said = "bit for bit the undisturbed run's" if off == 0 else f"largest difference of a weight {off:.1e}"
    part.check("the resumed run's weights", off <= (1e-4 if CARD else 0.0), said)


def full_memory(part: Part) -> None:
    if not CARD:
        part.skip("a batch of 100,000", "only a card's memory is safely filled")
        return
    run = WORK / "too-large"
    last = [
        f"data.cache={WORK}/cache-large/samples",
        f"hydra.run.dir={run}",
        "render=off",
        "evaluate=0",
        "trainer.progress=false",
    ]
    ended = Command("deproj.train", *TOO_LARGE, *last).wait()
    told = [line for line in ended.said.splitlines() if line.startswith("error:")]
    well = ended.code == 1 and len(told) == 1 and "data.batch_size" in told[0] and "Traceback" not in ended.said
    part.check("a batch of 100,000 is refused in a line", well, f"exit code {ended.code}: {told[0] if told else 'no such line'}")
    left = [path.name for path in run.rglob("*") if ".tmp" in path.name or path.name in ("result.json", "deprojector")]
    part.check("nothing half-written stays", not left, ", ".join(left) or "no result, no model, no unfinished file")


def main() -> int:
    part = Part()
    with part.step("interrupted and resumed"):
        interrupt(part)
    with part.step("a full memory"):
        full_memory(part)
    return part.end()


if __name__ == "__main__":
    sys.exit(main())
