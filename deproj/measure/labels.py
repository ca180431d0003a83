"""What results are called beside one another: by what distinguishes them, and not by what they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from deproj.runs.distinguishing import value_at

if TYPE_CHECKING:
    from deproj.measure.results import Result

__all__ = ["Labels"]

#: Of more settings in a name, those are left out that follow from the rest.
MOST = 3
#: Groups whose settings come with the choice.
CHOSEN = ("model", "objective")


class Labels:
    """Names for results.

    A setting that all runs with the same choices have alike follows from them, as the width of each of several models does. It
    isn't said where it is one of the choice's own, or where names would be long.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self.shared = shared_by(results)
        runs = [result for result in results if result.kind == "run"]
        keys = list(dict.fromkeys(key for result in results for key in result.extra if key not in self.shared))
        self.short = short_names([key for result in results for key in result.extra])
        self.said = [key for key in keys if not (key.startswith(tuple(f"{g}." for g in CHOSEN)) and follows(key, (), results))]
        if max((len(self.told(result)) for result in runs), default=0) > MOST:
            kept: list[str] = []
            for key in sorted(self.said, key=lambda key: not key.startswith(CHOSEN)):
                if not follows(key, [one for one in kept if explains(one, key)], results):
                    kept.append(key)
            self.said = [key for key in self.said if key in kept]

    def told(self, result: Result) -> list[str]:
        """Settings in its name."""
        return [f"{self.short[key]}={value}" for key, value in result.extra.items() if key in self.said]

    def unsaid(self, result: Result) -> list[str]:
        """Settings that it doesn't share with all and that its name leaves out, since they follow from it."""
        left = (key for key in result.extra if key not in self.shared and key not in self.said)
        return [f"{self.short[key]}={result.extra[key]}" for key in left]

    def label(self, result: Result) -> str:
        """Its name."""
        names = [name for by, name in result.names.items() if by not in self.shared]
        return ", ".join([*names, *self.told(result)] or self.usual(result) or result.names.values())

    def usual(self, result: Result) -> list[str]:
        """Values that others have changed, of one that has changed nothing."""
        values = {key: value_at(result.config, key) for key in self.said}
        return [f"{self.short[key]}={value}" for key, value in values.items() if value is not None]


def explains(one: str, other: str) -> bool:
    """Whether a setting may follow from another one: never an objective's from a model's, though both vary alike."""
    return not other.startswith(CHOSEN) or one.partition(".")[0] == other.partition(".")[0]


def follows(key: str, kept: Sequence[str], results: Sequence[Result]) -> bool:
    """Whether all results of the same choices, and of the same values of the settings that are kept, have a setting alike."""
    values: dict[str, str] = {}
    for result in results:
        known = repr((result.names, [result.extra.get(name) for name in kept]))
        value = repr(result.extra.get(key))
        if values.setdefault(known, value) != value:
            return False
    return True


def shared_by(results: Sequence[Result]) -> set[str]:
    """What needn't be said: names that all results share, and settings that all runs do and nothing else has."""
    everything = [result.names for result in results]
    names = {by for found in everything for by in found if all(other.get(by) == found[by] for other in everything)}
    runs = [result.extra for result in results if result.kind == "run"]
    others = {key for result in results if result.kind != "run" for key in result.extra}
    same = {key for found in runs for key in found if all(other.get(key) == found[key] for other in runs)}
    return names | (same - others)


def short_names(keys: list[str]) -> dict[str, str]:
    """Dotted keys by their last word, where no other key ends in it."""
    last = Counter(key.rpartition(".")[2] for key in set(keys))
    return {key: word if last[word := key.rpartition(".")[2]] == 1 else key for key in keys}
