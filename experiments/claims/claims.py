"""The article's claims, decided: ``python experiments/claims/claims.py > experiments/claims/table.md``.

Reads the evaluations that lie in ``experiments/*/runs``. A claim says that one setting is better than another; it is put to
four tests, fidelity and conditioning error of single and of composed prompts, each the paired difference of the two settings
over the same prompts and seeds (`deproj.measure.compare.difference`). A test speaks for the claim where the 95 % interval leaves
out 0 in the claimed direction, against it where it leaves it out in the other. A claim

    holds            where all of its tests speak for it,
    holds in part    where some do and none against it,
    is undecided     where none does either way,
    does not hold    where some speak against it and none for it,
    is contradicted in part   where both happen.

That a setting has no noise is decided by the noise measure: the upper end of its interval lies under 1.1
(experiments/noise says why 1.1).
"""

from __future__ import annotations

from pathlib import Path

from deproj.measure.compare import Estimate, difference, estimate
from deproj.measure.results import Setting, collect
from deproj.runs.records import KINDS

HERE = Path(__file__).resolve().parents[1]
TESTS = (("fidelity", 1), ("conditioning_error", -1))
SELECTIONS = ("all", "words_eos", "words_eos_reversed", "eos_onward")
BEST = "eos_onward, recursive"
EIGHT = [f"{selection}, {feed}" for selection in SELECTIONS for feed in ("batch", "recursive")]

#: Letter, claim, (better, worse) pairs of settings, kinds of prompts.
CLAIMS = [
    ("a", "words_eos, batch-fed, is clearly worse than all", [("all, batch", "words_eos, batch")]),
    ("a", "words_eos_reversed, batch-fed, is clearly worse than all", [("all, batch", "words_eos_reversed, batch")]),
    ("b", "eos_onward, batch-fed, is less faithful to the prompt than all", [("all, batch", "eos_onward, batch")]),
    ("c", "eos_onward gains clearly when fed recursively", [(BEST, "eos_onward, batch")]),
    ("d", "eos_onward fed recursively is the best of all eight", [(BEST, other) for other in EIGHT if other != BEST]),
    ("e", "trained recursively from the start is better than batch-trained and trained further", [(BEST, "further")]),
    ("f", "adding differences to the empty prompt beats the mean", [(BEST, "mean")]),
    ("g", "mixed samples in training (60 %) make composed prompts better", [(BEST, "unmixed")]),
]
#: Claims on composed prompts alone.
COMPOSED_ONLY = ("f", "g")


def verdict(signs: list[int]) -> str:
    """What the tests say together; a sign is 1 for, -1 against, 0 neither."""
    if all(sign == 1 for sign in signs):
        return "**holds**"
    if 1 in signs and -1 in signs:
        return "**contradicted in part**"
    if 1 in signs:
        return "**holds in part**"
    return "**does not hold**" if -1 in signs else "**undecided**"


def shown(found: Estimate, sign: int) -> tuple[str, int]:
    """A difference as text, and whether it speaks for the claim."""
    says = 1 if sign * found.value > 0 and found.low * found.high > 0 else -1 if found.low * found.high > 0 else 0
    return f"{found.value:+.3f} ({found.low:+.3f}, {found.high:+.3f}) {'✓' if says == 1 else '✗' if says == -1 else '·'}", says


def main() -> None:
    names = ("ignored_states", "recursive_input", "composition")
    settings, left_out = collect([HERE / name / "runs" for name in names])
    if left_out:
        raise SystemExit("\n".join(f"{folder}: {reason}" for folder, reason in left_out))
    by_label: dict[str, Setting] = {setting.label: setting for setting in settings}
    for short, part in (("further", "init_from"), ("mean", "composed=mean"), ("unmixed", "split=")):
        by_label[short] = next(s for s in settings if s.name == BEST and part in s.label)
    print("| | claim | difference of | fidelity, single | composed | conditioning error, single | composed | verdict |")
    print("|---|---|---|---|---|---|---|---|")
    for letter, text, pairs in CLAIMS:
        lines, all_signs = [], []
        for better, worse in pairs:
            cells, signs = [], []
            for measure, sign in TESTS:
                for kind in ("single", "composed"):
                    if kind == "single" and letter in COMPOSED_ONLY:
                        cells.append("")
                        continue
                    found = difference(by_label[better].measured(kind), by_label[worse].measured(kind), measure)
                    assert found is not None
                    cell, says = shown(found, sign)
                    cells.append(cell)
                    signs.append(says)
            lines.append((f"{better} − {worse}", cells, verdict(signs)))
            all_signs += signs
        if len(lines) > 1:
            lines.insert(0, ("all of these", [""] * 4, verdict(all_signs)))
        for k, (name, cells, said) in enumerate(lines):
            first = (f"({letter})", text) if k == 0 else ("", "")
            print(f"| {first[0]} | {first[1]} | {name} | {' | '.join(cells)} | {said} |")
    single, composed = (estimate(by_label["eos_onward, batch"].measured(kind), "noise") for kind in KINDS)
    assert single is not None
    assert composed is not None
    says = "**holds**" if max(single.high, composed.high) < 1.1 else "**undecided**"
    if min(single.low, composed.low) > 1.1:
        says = "**does not hold**"
    print(f"| (b) | eos_onward, batch-fed, has no noise (under 1.1) | noise: {single}; composed {composed} | | | | | {says} |")


if __name__ == "__main__":
    main()
