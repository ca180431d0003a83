"""The article's claims and those past it, decided: ``python experiments/claims.py`` writes ``claims/table.md``.

Reads the evaluations that lie in ``experiments/*/runs``. A claim says that one setting is better than another; it is put to
four tests, fidelity and conditioning error of single and of composed prompts, each the paired difference of the two settings
over the same prompts and seeds (`deproj.measure.compare.difference`). A test speaks for the claim where the 95 % interval leaves
out 0 in the claimed direction, against it where it leaves it out in the other. A claim

    holds            where all of its tests speak for it,
    holds in part    where some do and none against it,
    is undecided     where none does either way,
    does not hold    where some speak against it and none for it,
    is contradicted in part   where both happen.

That something makes no difference holds where no interval reaches further than `CLOSE` from 0, and does not where one lies
beyond. That a setting has no noise is decided by the noise measure: the upper end of its interval lies under 1.1
(experiments/noise says why 1.1).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from kept import EXPERIMENTS, SELECTIONS, Kept, world_of

from deproj.measure.compare import Estimate, difference, estimate
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_whole
from deproj.runs.records import KINDS

TESTS = (("fidelity", 1), ("conditioning_error", -1))
#: A difference of fidelity or conditioning error that doesn't matter.
CLOSE = 0.02

FOLDERS = {"batch": "ignored_states", "recursive": "recursive_input"}
EIGHT = {
    (selection, feed): Kept(f"{selection}, {feed}", f"{folder}/{selection}-{feed}-*")
    for selection in SELECTIONS
    for feed, folder in FOLDERS.items()
}
BEST = EIGHT["eos_onward", "recursive"]
STATES = {selection: Kept(f"states, {selection}", f"past_the_article/states-{selection}-*") for selection in SELECTIONS}
THROUGH = {
    selection: Kept(f"conditioning, {selection}", f"past_the_article/conditioning-{selection}-*") for selection in SELECTIONS
}
PICTURES = Kept("conditioning, from pictures", "past_the_article/pictures-*")
LARGE = Kept("states, all, 6.2 M", "past_the_article/large-*")
SMALL = Kept("small, as it ships", "best/small-*")
FIVE = Kept("eos_onward, recursive, five parts", "past_the_article/five-*")


@dataclass(frozen=True)
class Claim:
    """A claim about pairs of settings.

    Attributes:
        pairs: (better, worse); of `alike` ones in either order.
        kinds: of prompts that it is about.
        alike: whether it says that they don't differ.
    """

    letter: str
    text: str
    pairs: tuple[tuple[Kept, Kept], ...]
    kinds: tuple[str, ...] = KINDS
    alike: bool = False


CLAIMS = (
    Claim("a", "words_eos, batch-fed, is clearly worse than all", ((EIGHT["all", "batch"], EIGHT["words_eos", "batch"]),)),
    Claim(
        "a",
        "words_eos_reversed, batch-fed, is clearly worse than all",
        ((EIGHT["all", "batch"], EIGHT["words_eos_reversed", "batch"]),),
    ),
    Claim(
        "b",
        "eos_onward, batch-fed, is less faithful to the prompt than all",
        ((EIGHT["all", "batch"], EIGHT["eos_onward", "batch"]),),
    ),
    Claim("c", "eos_onward gains clearly when fed recursively", ((BEST, EIGHT["eos_onward", "batch"]),)),
    Claim(
        "d",
        "eos_onward fed recursively is the best of all eight",
        tuple((BEST, other) for other in EIGHT.values() if other != BEST),
    ),
    Claim(
        "e",
        "trained recursively from the start is better than batch-trained and trained further",
        ((BEST, Kept("further", "recursive_input/eos_onward-further-*")),),
    ),
    Claim(
        "f",
        "adding differences to the empty prompt beats the mean",
        ((BEST, Kept("mean", BEST.runs, mean=True)),),
        kinds=("composed",),
    ),
    Claim(
        "g",
        "mixed samples in training (60 %) make composed prompts better",
        ((BEST, Kept("unmixed", "composition/eos_onward-recursive-unmixed-*")),),
        kinds=("composed",),
    ),
)
PAST = (
    Claim("h", "sums of up to five parts in training make composed prompts better", ((FIVE, BEST),), kinds=("composed",)),
    Claim("h", "at no cost to single ones", ((FIVE, BEST),), kinds=("single",), alike=True),
    Claim(
        "i",
        "training through the U-Net beats every selection of states, in equal time, of some ten minutes",
        tuple((THROUGH["all"], states) for states in STATES.values()),
    ),
    Claim("i", "in fifty minutes, it beats states in ten", ((SMALL, STATES["all"]),)),
    Claim(
        "j",
        "through the U-Net, the choice of states hardly matters",
        tuple((THROUGH["all"], THROUGH[selection]) for selection in SELECTIONS[1:]),
        alike=True,
    ),
    Claim("k", "captions alone do as well as pictures", ((THROUGH["all"], PICTURES),), alike=True),
    Claim("l", "half a million parameters through the U-Net beat six million on states", ((THROUGH["all"], LARGE),)),
    Claim("l", "in fifty minutes", ((SMALL, LARGE),)),
)


def verdict(signs: list[int]) -> str:
    """What the tests say together; a sign is 1 for, -1 against, 0 neither."""
    if all(sign == 1 for sign in signs):
        return "**holds**"
    if 1 in signs and -1 in signs:
        return "**contradicted in part**"
    if 1 in signs:
        return "**holds in part**"
    return "**does not hold**" if -1 in signs else "**undecided**"


def says(found: Estimate, sign: int, alike: bool) -> int:
    """Whether a difference speaks for a claim (1), against it (-1) or neither (0)."""
    if alike:
        return 1 if max(abs(found.low), abs(found.high)) < CLOSE else -1 if found.low > CLOSE or found.high < -CLOSE else 0
    if found.low <= 0 <= found.high:
        return 0
    return 1 if sign * found.value > 0 else -1


def measured_today(claim: Claim) -> bool:
    """Whether all that a claim is about was measured in today's world."""
    try:
        return all(e.world == world_of() for pair in claim.pairs for setting in pair for e in setting.evaluations())
    except UserError:
        return False


def lines_of(claim: Claim) -> list[str]:
    """The rows of a claim's table."""
    if not measured_today(claim):
        return [f"| ({claim.letter}) | {claim.text} | | | | | | not measured in today's world |"]
    rows, all_signs = [], list[int]()
    for better, worse in claim.pairs:
        cells, signs = [], []
        for measure, sign in TESTS:
            for kind in KINDS:
                if kind not in claim.kinds:
                    cells.append("")
                    continue
                found = difference(better.measured(kind), worse.measured(kind), measure)
                assert found is not None
                said = says(found, sign, claim.alike)
                cells.append(f"{found.signed} {'✗·✓'[said + 1]}")
                signs.append(said)
        rows.append((f"{better.label} − {worse.label}", cells, verdict(signs)))
        all_signs += signs
    if len(rows) > 1:
        rows.insert(0, ("all of these", [""] * 4, verdict(all_signs)))
    heads = [(f"({claim.letter})", claim.text), *[("", "")] * (len(rows) - 1)]
    return [
        f"| {letter} | {text} | {name} | {' | '.join(cells)} | {said} |"
        for (letter, text), (name, cells, said) in zip(heads, rows, strict=True)
    ]


def noiseless() -> str:
    """The row of the claim that eos_onward, batch-fed, has no noise."""
    setting = EIGHT["eos_onward", "batch"]
    if any(e.world != world_of() for e in setting.evaluations()):
        return "| (b) | eos_onward, batch-fed, has no noise (under 1.1) | | | | | | not measured in today's world |"
    single, composed = (estimate(setting.measured(kind), "noise") for kind in KINDS)
    assert single is not None
    assert composed is not None
    said = "**holds**" if max(single.high, composed.high) < 1.1 else "**undecided**"
    if min(single.low, composed.low) > 1.1:
        said = "**does not hold**"
    return f"| (b) | eos_onward, batch-fed, has no noise (under 1.1) | noise: {single}; composed {composed} | | | | | {said} |"


def table(claims: tuple[Claim, ...]) -> list[str]:
    head = "| | claim | difference of | fidelity, single | composed | conditioning error, single | composed | verdict |"
    return [head, "|---|---|---|---|---|---|---|---|", *(line for claim in claims for line in lines_of(claim))]


def main() -> int:
    def command() -> None:
        write_whole(EXPERIMENTS / "claims" / "table.md", "\n".join([*table(CLAIMS), noiseless()]) + "\n")
        print("Wrote claims/table.md.")
        if not any(map(measured_today, PAST)):
            print("Not those past the article, of which none is measured: python experiments/jobs.py past_the_article")
            return
        write_whole(EXPERIMENTS / "past_the_article" / "table.md", "\n".join(table(PAST)) + "\n")
        print("Wrote past_the_article/table.md.")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
