"""The settings as the comments of the YAML files in ``conf/`` describe them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deproj.settings.shipped import CONF, GROUPS

__all__ = ["Choice", "Described", "common", "default_choices", "described", "lines_of"]

LINE = re.compile(r"(?P<indent> *)(?P<key>[\w.]+):(?: +(?P<value>[^#\s][^#]*?))?(?: +# *(?P<comment>.*))?")
EXAMPLE = re.compile(r"[;,.]? *e\.g\. (\S+)$")


@dataclass
class Line:
    """A value of a YAML file by its dotted key, as it is written, with the comment beside and below it."""

    key: str
    value: str
    comment: str


@dataclass(frozen=True)
class Choice:
    """A choice of a group, and what the head of its file says."""

    name: str
    about: str


@dataclass
class Described:
    """A setting.

    Attributes:
        key: dotted.
        abouts: what its comments say, by the choice whose file each stands in, or by an empty text for ``config.yaml``.
        example: a value, or an empty text.
        defaults: by the choice that sets it, or by an empty text where it stands in ``config.yaml``.
    """

    key: str
    abouts: dict[str, str] = field(default_factory=dict)
    example: str = ""
    defaults: dict[str, str] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """What the comment says, or each choice's own."""
        by_text: dict[str, list[str]] = {}
        for choice, text in self.abouts.items():
            by_text.setdefault(text, []).append(choice)
        if len(by_text) < 2:
            return "".join(by_text)
        return "; ".join(f"with {' or '.join(names)}, {text}" for text, names in by_text.items())


def text_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def about(path: Path) -> str:
    """What the comment at the head of a file says."""
    said = []
    for line in text_of(path):
        if not line.startswith("#"):
            break
        said += [line[1:].strip()] if "@package" not in line else []
    return " ".join(said)


def lines_of(path: Path) -> list[Line]:
    """The values of a YAML file, without lists."""
    found: list[Line] = []
    above: list[tuple[int, str]] = []
    for text in text_of(path):
        if found and text.startswith(" ") and text.strip().startswith("#"):
            found[-1].comment += " " + text.strip()[1:].strip()
            continue
        if (match := LINE.fullmatch(text)) is None:
            continue
        depth = len(match["indent"])
        above = [(indent, key) for indent, key in above if indent < depth]
        key = ".".join([*(key for _, key in above), match["key"]])
        if match["value"] is None:
            above.append((depth, match["key"]))
        else:
            found.append(Line(key, match["value"].strip(), match["comment"] or ""))
    return found


def choices(group: str, more: Iterable[Path] = ()) -> list[Choice]:
    """The choices of a group: those that ship, and those in other folders of settings."""
    paths = [path for folder in (CONF, *more) for path in sorted((folder / group).glob("*.yaml"))]
    return [Choice(path.stem, about(path)) for path in paths]


def default_choices() -> dict[str, str]:
    """The choice of each group where nobody chooses."""
    pairs = (re.fullmatch(r"  - (\w+): (\w+)", line) for line in text_of(CONF / "config.yaml"))
    return {pair[1]: pair[2] for pair in pairs if pair}


def common() -> list[str]:
    """The settings and groups that are most used, as ``config.yaml`` names them."""
    (line,) = (line for line in text_of(CONF / "config.yaml") if line.startswith("# Most used: "))
    return line.removeprefix("# Most used: ").rstrip(".").split(", ")


def described() -> dict[str, Described]:
    """All settings by their dotted keys: first those of ``config.yaml``, then the groups'.

    Of Hydra's own, those that have a comment.
    """
    found: dict[str, Described] = {}
    for line, choice in every_line():
        setting = found.setdefault(line.key, Described(line.key))
        setting.defaults[choice] = line.value
        if line.comment:
            example = EXAMPLE.search(line.comment)
            setting.example = setting.example or (example[1] if example else "")
            setting.abouts[choice] = EXAMPLE.sub("", line.comment)
    return found


def every_line() -> Iterator[tuple[Line, str]]:
    """Lines that set something, each with the choice whose file it stands in."""
    for line in lines_of(CONF / "config.yaml"):
        if not line.key.startswith("hydra.") or line.comment:
            yield line, ""
    for group in GROUPS:
        for path in sorted((CONF / group).glob("*.yaml")) if group != "experiment" else ():
            for line in lines_of(path):
                if not line.key.startswith("_"):
                    yield Line(f"{group}.{line.key}", line.value, line.comment), path.stem
