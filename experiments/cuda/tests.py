"""Part 0: the tests marked `cuda`, which run on a card alone."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from common import Part

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "cuda"


class Outcomes:
    """Counts what becomes of the tests, and keeps why one failed or was skipped."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: dict[str, str] = {}
        self.reasons: set[str] = set()

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.counts[report.outcome] += 1
        if report.outcome == "failed":
            self.failed[report.nodeid] = report.longreprtext[-1500:]
        elif report.outcome == "skipped":
            self.reasons.add(str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else str(report.longrepr))


def main() -> int:
    part, outcomes = Part(), Outcomes()
    code = pytest.main(["-n", "0", "-m", "cuda", "-p", "no:cacheprovider", "-rs", "--timeout=60", str(FOLDER)], [outcomes])
    part.note("tests", dict(outcomes.counts))
    if outcomes.failed:
        part.note("failed", outcomes.failed)
    elif not outcomes.counts["passed"] and outcomes.reasons:
        part.skip_all("; ".join(sorted(outcomes.reasons)))
        return 0
    part.check("tests marked cuda", code == 0, ", ".join(f"{count} {name}" for name, count in outcomes.counts.items()) or "none")
    return part.end()


if __name__ == "__main__":
    sys.exit(main())
