"""Part 7: torch.compile of the plain loop as a whole, in the time that is left, since it compiles for minutes."""

from __future__ import annotations

import sys
import time

import fast
from common import CARD, SHORTEST, Part


def main() -> int:
    part = Part()
    if SHORTEST:
        part.skip_all("it compiles for too long for the shortest form")
        return 0
    row = fast.Row(fast.BATCHES[0], "recursive", "bf16")
    fast.set_precision(row.precision)
    if not CARD:
        # The selections are of 77 places, and compiling those takes a CPU minutes: what is seen to work is the place.
        row = fast.Row(fast.BATCHES[0], "recursive", "bf16", words=True)
    start = time.perf_counter()
    part.found["notes"]["row"] = row.name
    with part.step("torch.compile of the whole loop"):
        step = fast.training(row, "compiled loop")
        step()
        part.note("seconds of compiling", time.perf_counter() - start)
        whole, spread, calls = fast.timed(step)
        part.note("compiled loop", {"seconds": whole, "spread": spread, "calls": calls})
        for kind in ("graphs", "ours") if CARD else ("ours",):
            ours = fast.timed(fast.training(row, kind))[0]
            part.note(kind, {"seconds": ours, "times as fast as the compiled loop": whole / ours})
    return part.end()


if __name__ == "__main__":
    sys.exit(main())
