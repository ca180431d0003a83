"""``--help`` of the training: every setting in the words of ``conf/``, the common ones first."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from textwrap import wrap

from deproj.settings.described import Described, choices, common, default_choices, described
from deproj.settings.shipped import GROUPS

__all__ = ["asked_for_help", "help_page"]

COLUMN = 28
HEAD = """usage: python -m deproj.train [SETTING=VALUE ...]

Trains a deprojector. A value is set by its name, as in data.size=20000. A choice swaps a group, as in selection=all.
With -m, several values with commas train one model each, as in -m selection=all,eos_onward seed=0,1,2."""
FOOT = """Also:
  -m                          a sweep: one model for each combination of values
  --dry-run                   tells what would be done, and does nothing
  --config-dir=FOLDER         settings of your own, as FOLDER/selection/mine.yaml
  --cfg job                   Hydra's: shows the settings as composed, and trains nothing
  --hydra-help, --info        Hydra's own

Examples:
  python -m deproj.train data.prompts=captions.txt hydra.run.dir=runs/mine
  python -m deproj.train resume=runs/mine trainer.max_epochs=40
  python -m deproj.train -m selection=all,eos_onward feed=batch,recursive evaluate=200"""


def asked_for_help(arguments: list[str]) -> bool:
    return any(argument in ("--help", "-h") for argument in arguments)


def row(name: str, text: str, indent: int = 2) -> list[str]:
    """A name and what is said of it, in two columns."""
    width = max(60, min(shutil.get_terminal_size((110, 24)).columns, 120)) - COLUMN
    said = wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]
    label = f"{' ' * indent}{name}"
    if len(label) >= COLUMN:
        return [label, *(" " * COLUMN + line for line in said)]
    return [f"{label:<{COLUMN}}{said[0]}".rstrip(), *(" " * COLUMN + line for line in said[1:])]


def default_of(setting: Described, settings: dict[str, Described]) -> str:
    """What holds where nobody sets it."""
    group = setting.key.partition(".")[0]
    if "" in setting.defaults:
        value = setting.defaults[""]
        if value.startswith("${") and (other := settings.get(value[2:-1])):  # as ${sd.samples}
            return default_of(other, settings)
        return "" if value.startswith(("${", "sweeps/${")) else f"Default: {value}."
    by_value: dict[str, list[str]] = {}
    for choice, value in setting.defaults.items():
        by_value.setdefault(value, []).append(choice)
    if len(by_value) == 1 and set(setting.defaults) == {each.name for each in choices(group)}:
        return f"Default: {next(iter(by_value))}."
    said = [f"{value} with {group}={' or '.join(names)}" for value, names in by_value.items()]
    return f"Default: {', '.join(said)}."


def is_choice(setting: Described) -> bool:
    """Whether a value only repeats the choice that it is of, as logger.kind."""
    return all(choice == value for choice, value in setting.defaults.items())


def setting_rows(setting: Described, settings: dict[str, Described]) -> list[str]:
    said = [setting.about.rstrip(".") + "." if setting.about else "", default_of(setting, settings)]
    said += [f"Example: {setting.key}={setting.example}"] if setting.example else []
    return row(setting.key, " ".join(filter(None, said)))


def group_rows(group: str, more: Iterable[Path]) -> list[str]:
    """A group and its choices."""
    default, found = default_choices().get(group), choices(group, more)
    other = next((choice.name for choice in found if choice.name != default), "")
    said = f"One of those below. Default: {'none' if default == 'null' else default}. Example: {group}={other}"
    return row(group, said) + [line for choice in found for line in row(f"={choice.name}", choice.about, indent=4)]


def config_dirs(arguments: list[str]) -> list[Path]:
    """Folders of settings that a command names."""
    found = []
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in ("--config-dir", "-cd"):
            found.append(Path(value if equals else "".join(arguments[place + 1 : place + 2])))
    return found


def help_page(arguments: list[str]) -> str:
    """The page.

    Args:
        arguments: of the command, whose own folders of settings are listed too.
    """
    settings, more, first = described(), config_dirs(arguments), common()

    def rows(name: str) -> list[str]:
        return group_rows(name, more) if name in GROUPS else setting_rows(settings[name], settings)

    lines = [HEAD, "", "Most used:", *(line for name in first for line in rows(name))]
    rest = [name for name in GROUPS if name not in first]
    lines += ["", "Other choices:", *(line for name in rest for line in rows(name))]
    values: dict[str, list[str]] = {}
    for name in settings:
        if name not in first and not is_choice(settings[name]):
            values.setdefault(name.partition(".")[0] if "." in name else "", []).append(name)
    for part, names in values.items():
        title = f"Settings of {part}:" if part else "Other settings:"
        lines += ["", title, *(line for name in names for line in rows(name))]
    return "\n".join([*lines, "", FOOT])
