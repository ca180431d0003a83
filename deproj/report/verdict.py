"""What a comparison says, in a sentence for each kind of prompts, and what it leaves open."""

from __future__ import annotations

from deproj.measure.compare import FEWEST, Estimate, signed
from deproj.measure.results import Setting
from deproj.measure.rows import Row, difference_between
from deproj.runs.records import KINDS, MEASURES

__all__ = ["verdict"]

#: The measures that decide, the first that there is, and how it is told; {} is its value with the interval.
DECIDING = {
    "fidelity": "{} of the asked attributes are found in its pictures",
    "clip_score": "its pictures have a CLIP score of {}",
    "conditioning_error": "its conditioning error is {}",
}
#: So many names are listed at most.
LISTED = 4


def verdict(found: list[Setting], rows: list[Row]) -> list[str]:
    """Sentences, the most important first."""
    measure = next((m for m in DECIDING if any(m in row.values for row in rows)), None)
    said = [] if measure is None else [sentence(found, rows, kind, measure) for kind in KINDS]
    few = [setting.label for setting in found if setting.trained_here and len(setting.results) < FEWEST]
    if few:
        whose = "all settings" if len(few) == sum(setting.trained_here for setting in found) > 1 else names(few)
        said.append(
            f"Fewer than {FEWEST} training seeds: {whose}. That is too few for an interval over seeds; theirs are of the "
            "prompts alone, and training again may move the values out of them."
        )
    return [one for one in said if one]


def sentence(found: list[Setting], rows: list[Row], kind: str, measure: str) -> str:
    """Which setting is best on a kind of prompts, by how much, and which it isn't told apart from."""
    values = {row.setting: row.values[measure] for row in rows if row.prompts == kind and measure in row.values}
    settings = {setting.label: setting for setting in found if setting.label in values}
    if not settings:
        return ""
    more = MEASURES[measure]
    first, *others = sorted(settings, key=lambda label: -values[label].value if more else values[label].value)
    told = DECIDING[measure].format(between(values[first]))
    if not others:
        return f"On {kind} prompts, {told} (“{first}”)."
    called = f"“{first}”" + ", a baseline," * settings[first].baseline
    apart = {label: difference_between(settings[first], settings[label], kind, measure) for label in others}
    undecided = open_among(apart)
    behind = [label for label in others if label not in undecided]
    if not undecided:
        lead = f"{amount(apart[others[0]])} than of “{others[0]}”, the next"
        said = [f"On {kind} prompts, {called} is ahead of all others: {told}, {lead}."]
        said += after(others, settings, kind, measure) if len(others) > 1 else []
    else:
        zero = Estimate(0.0, 0.0, 0.0)
        level = [label for label in undecided if apart[label] == zero]
        open_ = [label for label in undecided if label not in level]
        said = [f"On {kind} prompts, {called} comes first: {told}."]
        said += [f"Level with it, on every prompt: {names(level)}."] * bool(level)
        said += [f"Not told apart from it (in brackets, how far it is ahead): {names(open_, apart)}."] * bool(open_)
        if behind:
            rest = f", and of {len(behind) - 1} more" if len(behind) > 1 else ""
            said.append(f"It is ahead of “{behind[0]}” by {span(apart[behind[0]])}{rest}.")
    return " ".join([*said, *otherwise(first, found, rows, kind, measure)])


def open_among(apart: dict[str, Estimate | None]) -> list[str]:
    """Settings whose difference isn't decided."""
    return [label for label, by in apart.items() if by is None or by.low <= 0 <= by.high]


def after(others: list[str], settings: dict[str, Setting], kind: str, measure: str) -> list[str]:
    """How the next stands to those behind it."""
    second, *rest = others
    apart = {label: difference_between(settings[second], settings[label], kind, measure) for label in rest}
    if undecided := open_among(apart):
        ahead = "not told apart from (in brackets, how far it is ahead)"
        return [f"Of the others “{second}” comes first, {ahead}: {names(undecided, apart)}."]
    return [f"Of the others “{second}” is ahead, {amount(apart[rest[0]])} than of “{rest[0]}”."]


def otherwise(first: str, found: list[Setting], rows: list[Row], kind: str, measure: str) -> list[str]:
    """What conditioning error says, where by it another than the first is the best."""
    other = "conditioning_error"
    values = {row.setting: row.values[other].value for row in rows if row.prompts == kind and other in row.values}
    if measure == other or first not in values:
        return []
    settings = {setting.label: setting for setting in found}
    least = min(values, key=lambda label: values[label])
    by = difference_between(settings[least], settings[first], kind, other)
    if by is None or by.high >= 0:
        return []
    return [f"Conditioning error says otherwise: “{least}” has the least, {span(by)} less than “{first}”."]


def amount(by: Estimate | None) -> str:
    assert by is not None
    return f"{span(by)} {'more' if by.value > 0 else 'less'}"


def span(by: Estimate | None) -> str:
    """The size of a difference that has a sign."""
    assert by is not None
    low, high = sorted((abs(by.low), abs(by.high)))
    return f"{abs(by.value):.3f} ({low:.3f} to {high:.3f})"


def between(estimate: Estimate) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"


def names(labels: list[str], apart: dict[str, Estimate | None] | None = None) -> str:
    """Labels, each with its difference where there is one."""
    listed = []
    for label in labels[:LISTED]:
        by = None if apart is None else apart[label]
        interval = "" if by is None else f" ({signed(by.value)}, {signed(by.low)} to {signed(by.high)})"
        listed.append(f"“{label}”{interval}")
    return ", ".join(listed) + (f" and {len(labels) - LISTED} more" if len(labels) > LISTED else "")
