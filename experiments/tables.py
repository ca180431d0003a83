"""Writes the tables of the experiments' pages from the evaluations in ``experiments/*/runs``: ``python experiments/tables.py``.

A page says where a table stands, between ``<!-- table: NAME -->`` and ``<!-- end of table -->``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from deproj.measure.compare import estimate
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_whole
from deproj.runs.folder import RunFolder
from deproj.runs.records import KINDS, Evaluation, Measured, told

EXPERIMENTS = Path(__file__).resolve().parent
FOUR = ("fidelity", "conditioning_error", "noise", "likeness")
TWO = ("fidelity", "conditioning_error")


@dataclass(frozen=True)
class Row:
    """A setting: what it is called, and the runs of it, one a seed.

    Attributes:
        runs: ``EXPERIMENT/NAME``, with ``*`` for the seed.
        mean: whether composed prompts are the mean of their parts; a single prompt has no parts.
    """

    label: str
    runs: str
    mean: bool = False

    def evaluations(self) -> list[Evaluation]:
        """Of each seed.

        Raises:
            UserError: where there is none.
        """
        experiment, name = self.runs.split("/")
        found = sorted((EXPERIMENTS / experiment / "runs").glob(name))
        if not found:
            raise UserError(f"there is no run {self.runs} in {EXPERIMENTS}; python experiments/jobs.py {experiment}")
        return [RunFolder(path).read_evaluation(self.mean) for path in found]

    def measured(self, kind: str) -> list[Measured]:
        return [evaluation.of(kind) for evaluation in self.evaluations()]

    def cell(self, kind: str, measure: str) -> str:
        if self.mean and kind == "single":
            return ""
        return str(estimate(self.measured(kind), measure) or "")


@dataclass(frozen=True)
class Table:
    """Settings and their measures.

    Attributes:
        side_by_side: single and composed prompts in columns, else one below the other.
    """

    page: str
    rows: tuple[Row, ...]
    measures: tuple[str, ...] = FOUR
    side_by_side: bool = False

    def __str__(self) -> str:
        if self.side_by_side:
            heads = [f"{told(measure)}, {kind}" for measure in self.measures for kind in KINDS]
            lines = [[row.label, *(row.cell(k, m) for m in self.measures for k in KINDS)] for row in self.rows]
        else:
            heads, lines = list(map(told, self.measures)), []
            for kind in KINDS:
                lines.append([f"**{kind} prompts**", *[""] * len(heads)])
                lines += [
                    [row.label, *(row.cell(kind, m) for m in heads)] for row in self.rows if not (row.mean and kind == "single")
                ]
        return "\n".join(f"| {' | '.join(line)} |" for line in (["", *heads], ["---"] * (1 + len(heads)), *lines))


def four(feed: str, experiment: str) -> tuple[Row, ...]:
    return tuple(Row(name, f"{experiment}/{name}-{feed}-*") for name in ("all", "words_eos", "words_eos_reversed", "eos_onward"))


RECURSIVE = four("recursive", "recursive_input")
BEST = "recursive_input/eos_onward-recursive-*"
TABLES = {
    "ignored states": Table("ignored_states", four("batch", "ignored_states")),
    "recursive input": Table("recursive_input", (*RECURSIVE, Row("eos_onward, further", "recursive_input/eos_onward-further-*"))),
    "composition": Table(
        "composition",
        (
            Row("mixed in training", BEST),
            Row("mixed, the mean instead of the sum", BEST, mean=True),
            Row("unmixed", "composition/eos_onward-recursive-unmixed-*"),
        ),
    ),
    "baselines": Table(
        "baselines",
        (
            Row("LSTM, eos_onward, recursive", BEST),
            Row("LSTM, all, recursive", "recursive_input/all-recursive-*"),
            Row("LSTM, eos_onward, batch", "ignored_states/eos_onward-batch-*"),
            Row("LSTM, all, batch", "ignored_states/all-batch-*"),
            Row("MLP 0.33 M, eos_onward", "baselines/eos_onward-None-*"),
            Row("MLP 0.33 M, all", "baselines/all-None-*"),
            Row("MLP 5.3 M, eos_onward", "baselines/eos_onward-512-*"),
            Row("MLP 5.3 M, all", "baselines/all-512-*"),
            Row("ridge, eos_onward", "baselines/ridge-eos_onward"),
            Row("ridge, words_eos_reversed", "baselines/ridge-words_eos_reversed"),
            Row("ridge, all", "baselines/ridge-all"),
            Row("broadcast", "baselines/broadcast-all"),
            Row("nearest prompt's states", "baselines/nearest-all"),
            Row("mean state, all", "baselines/mean-all"),
            Row("mean state, eos_onward", "baselines/mean-eos_onward"),
            Row("mean state, words_eos_reversed", "baselines/mean-words_eos_reversed"),
        ),
        TWO,
        side_by_side=True,
    ),
}


def put(name: str, table: Table) -> None:
    """Writes a table into its page.

    Raises:
        UserError: where the page doesn't say where, and for runs that were measured in different worlds.
    """
    if len({evaluation.world for row in table.rows for evaluation in row.evaluations()}) > 1:
        raise UserError(f"the runs of the table {name!r} were measured in different worlds: python experiments/jobs.py first.")
    path = EXPERIMENTS / table.page / "README.md"
    text = path.read_text(encoding="utf-8")
    mark, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    before, found, rest = text.partition(mark)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path} has no place for a table between {mark} and {end}.")
    write_whole(path, f"{before}{mark}\n{table}\n{end}{after}")


def main() -> int:
    def command() -> None:
        for name, table in TABLES.items():
            put(name, table)
            print(f"{name}: {len(table.rows)} settings")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
