"""Writes the tables of the pages from the evaluations in ``experiments/*/runs``: ``python experiments/tables.py [TABLE...]``.

A page says where a table stands, between ``<!-- table: NAME -->`` and ``<!-- end of table -->``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kept import EXPERIMENTS, SELECTIONS, Kept, of_one_world

from deproj.measure.compare import estimate
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_whole
from deproj.runs.records import KINDS, told

FOUR = ("fidelity", "conditioning_error", "noise", "likeness")
TWO = ("fidelity", "conditioning_error")


def cell(row: Kept, kind: str, measure: str) -> str:
    if row.mean and kind == "single":
        return ""
    return str(estimate(row.measured(kind), measure) or "")


@dataclass(frozen=True)
class Table:
    """Settings and their measures.

    Attributes:
        side_by_side: single and composed prompts in columns, else one below the other.
        own_worlds: whether each row was measured in its own world, against true states of its own.
    """

    page: str
    rows: tuple[Kept, ...]
    measures: tuple[str, ...] = FOUR
    side_by_side: bool = False
    own_worlds: bool = False

    def __str__(self) -> str:
        if self.side_by_side:
            heads = [f"{told(measure)}, {kind}" for measure in self.measures for kind in KINDS]
            lines = [[row.label, *(cell(row, k, m) for m in self.measures for k in KINDS)] for row in self.rows]
        else:
            heads, lines = list(map(told, self.measures)), []
            for kind in KINDS:
                lines.append([f"**{kind} prompts**", *[""] * len(heads)])
                lines += [
                    [row.label, *(cell(row, kind, m) for m in self.measures)]
                    for row in self.rows
                    if not (row.mean and kind == "single")
                ]
        return "\n".join(f"| {' | '.join(line)} |" for line in (["", *heads], ["---"] * (1 + len(heads)), *lines))


def four(feed: str, experiment: str) -> tuple[Kept, ...]:
    return tuple(Kept(name, f"{experiment}/{name}-{feed}-*") for name in SELECTIONS)


RECURSIVE = four("recursive", "recursive_input")
BEST = "recursive_input/eos_onward-recursive-*"
TABLES = {
    "ignored states": Table("ignored_states", four("batch", "ignored_states")),
    "recursive input": Table(
        "recursive_input", (*RECURSIVE, Kept("eos_onward, further", "recursive_input/eos_onward-further-*"))
    ),
    "composition": Table(
        "composition",
        (
            Kept("mixed in training", BEST),
            Kept("mixed, the mean instead of the sum", BEST, mean=True),
            Kept("unmixed", "composition/eos_onward-recursive-unmixed-*"),
        ),
    ),
    "baselines": Table(
        "baselines",
        (
            Kept("LSTM, eos_onward, recursive", BEST),
            Kept("LSTM, all, recursive", "recursive_input/all-recursive-*"),
            Kept("LSTM, eos_onward, batch", "ignored_states/eos_onward-batch-*"),
            Kept("LSTM, all, batch", "ignored_states/all-batch-*"),
            Kept("MLP 0.33 M, eos_onward", "baselines/eos_onward-None-*"),
            Kept("MLP 0.33 M, all", "baselines/all-None-*"),
            Kept("MLP 5.3 M, eos_onward", "baselines/eos_onward-512-*"),
            Kept("MLP 5.3 M, all", "baselines/all-512-*"),
            Kept("ridge, eos_onward", "baselines/ridge-eos_onward"),
            Kept("ridge, words_eos_reversed", "baselines/ridge-words_eos_reversed"),
            Kept("ridge, all", "baselines/ridge-all"),
            Kept("broadcast", "baselines/broadcast-all"),
            Kept("nearest prompt's states", "baselines/nearest-all"),
            Kept("mean state, all", "baselines/mean-all"),
            Kept("mean state, eos_onward", "baselines/mean-eos_onward"),
            Kept("mean state, words_eos_reversed", "baselines/mean-words_eos_reversed"),
        ),
        TWO,
        side_by_side=True,
    ),
    "past the article": Table(
        "past_the_article",
        (
            Kept("LSTM, eos_onward, recursive (the article)", BEST),
            Kept("the same, sums of five parts", "past_the_article/five-*"),
            *(Kept(f"small, {name}", f"past_the_article/states-{name}-*") for name in SELECTIONS),
            *(Kept(f"small through the U-Net, {name}", f"past_the_article/conditioning-{name}-*") for name in SELECTIONS),
            Kept("the same from pictures, all", "past_the_article/pictures-*"),
            Kept("6.2 M on states, all", "past_the_article/large-*"),
            Kept("`small`, fifty minutes", "best/small-*"),
            Kept("`best`, eighty minutes", "best/best-*"),
        ),
        TWO,
        side_by_side=True,
    ),
    "model search": Table(
        "model_search",
        (
            Kept("one state at every place 0.24 M, on states", "model_search/small-one-state-states-*"),
            Kept("one state at every place 0.24 M, through the U-Net", "model_search/small-one-state-conditioning-*"),
            Kept("LSTM 0.33 M, on states", "model_search/lstm-states-*"),
            Kept("LSTM 0.33 M, through the U-Net", "model_search/lstm-conditioning-*"),
            Kept("residual 0.49 M (`small`), on states", "past_the_article/states-all-*"),
            Kept("residual 0.49 M, through the U-Net", "past_the_article/conditioning-all-*"),
            Kept("transformer 0.69 M, on states", "model_search/transformer-states-*"),
            Kept("transformer 0.69 M, through the U-Net", "model_search/transformer-conditioning-*"),
            Kept("LSTM 1.5 M, on states", "model_search/lstm-wide-states-*"),
            Kept("MLP 5.3 M, on states", "model_search/mlp-states-*"),
            Kept("MLP 5.3 M, through the U-Net", "model_search/mlp-conditioning-*"),
            Kept("residual 6.2 M (`best`), on states", "past_the_article/large-*"),
            Kept("residual 6.2 M, through the U-Net", "model_search/large-conditioning-*"),
            Kept("residual 0.49 M, the cross-attentions alone", "model_search/small-attention-*"),
            Kept("residual 0.49 M, the U-Net and 0.1 of the states' error", "model_search/small-both-*"),
        ),
        TWO,
        side_by_side=True,
    ),
    "clip skip": Table(
        "clip_skip",
        (Kept("clip skip 1", BEST), Kept("clip skip 2", "clip_skip/eos_onward-recursive-skip-2-*")),
        own_worlds=True,
    ),
}


def put(name: str, table: Table) -> None:
    """Writes a table into its page.

    Raises:
        UserError: where the page doesn't say where, and for runs that were measured in different worlds.
    """
    if not table.own_worlds:
        of_one_world(table.rows, f"the table {name!r}")
    path = EXPERIMENTS / table.page / "README.md"
    text = path.read_text(encoding="utf-8")
    mark, end = f"<!-- table: {name} -->", "<!-- end of table -->"
    before, found, rest = text.partition(mark)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(f"{path} has no place for a table between {mark} and {end}.")
    write_whole(path, f"{before}{mark}\n{table}\n{end}{after}")


def main() -> int:
    wanted = sys.argv[1:] or list(TABLES)

    def command() -> None:
        if unknown := [name for name in wanted if name not in TABLES]:
            raise UserError(f"no table is called {unknown[0]!r}; there are {', '.join(TABLES)}.")
        for name in wanted:
            table = TABLES[name]
            put(name, table)
            print(f"{name}: {len(table.rows)} settings")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
