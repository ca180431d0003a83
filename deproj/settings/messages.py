"""Messages about settings: mistakes in one line, and settings as they are typed."""

from __future__ import annotations

import re
from typing import Any

from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.process.system import quoted
from deproj.settings.described import described
from deproj.settings.mistakes import unknown
from deproj.settings.shipped import CONF

__all__ = ["all_keys", "explain", "readable", "typed"]


def all_keys() -> set[str]:
    """Every setting that the shipped files hold, as dotted keys."""
    keys = {key for key in described() if key.startswith("hydra.")}

    def walk(node: Any, prefix: str) -> None:
        for key, value in node.items():
            keys.add(f"{prefix}{key}")
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")

    for path in CONF.rglob("*.yaml"):
        group = path.parent.relative_to(CONF).as_posix()
        content = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(content, dict)
        content = {key: value for key, value in content.items() if key not in ("defaults", "hydra")}
        if group == "experiment":
            continue
        walk(content, "" if group == "." else f"{group.replace('/', '.')}.")
        if group != ".":
            keys.add(group)
    return {key for key in keys if "._" not in key}


def typed(key: str, value: Any) -> str:
    """A setting as it is typed in a shell, whatever signs its value holds."""
    text = "null" if value is None else str(value)
    if isinstance(value, str) and not re.fullmatch(r"[\w/.:+-]+( [\w/.:+-]+)*", text):
        escaped = re.sub(r"(\\*)('|\Z)", r"\1\1\2", text).replace("'", "\\'")  # Hydra reads \\ as \ before a quote only
        text = f"'{escaped}'"
    return quoted(f"{key}={text}")


def readable(argument: str) -> str:
    """An argument as Hydra reads it: letters beyond ASCII, as of a file's name, it takes in quotes alone."""
    key, equals, value = argument.partition("=")
    if not equals or value.isascii() or value != value.strip() or re.search(r"[,()\[\]{}'\"=$\\]", value):
        return argument
    return f"{key}='{value}'"


def explain(error: HydraException | OmegaConfBaseException) -> str:
    """A Hydra or OmegaConf error in one line."""
    text = str(error)
    if isinstance(error, OverrideParseException):
        key, equals, value = error.override.partition("=")
        if equals and key and not key.isascii():
            return unknown(key, all_keys())
        if not equals and re.fullmatch(r"[\w/.@+~-]+", key):
            return f"{key} is no setting: these are typed as NAME=VALUE, for example selection=all; --help lists them."
        if equals and re.fullmatch(r"[\w/.@+~-]+", key):
            return f"{error.override} can't be read: signs as ( ) = [ {{ ' , are quoted. Type it as: {typed(key, value)}"
    if match := re.search(r"Could not find '([\w/-]+)/([^'/]*)'(.*)", text, re.DOTALL):
        group, choice, rest = match.groups()
        listed = rest.partition("Config search path")[0]
        options = [line.strip() for line in listed.splitlines() if line.startswith("\t")]
        more = " (others come with pip install 'deproj[sweeps]')" if group.startswith("hydra/") else ""
        return f"unknown {group}={choice}; allowed: {', '.join(options)}{more}."
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        key, _, values = match.group(1).partition("=")
        if key == "logger":
            return f"a run takes one logger, beside its metrics.csv; got {values}. logger={values.partition(',')[0]} is one."
        return f"{key}={values} is several values, which is a sweep: add -m."
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown(match.group(1), all_keys())
    if isinstance(error, HydraException) and error.__cause__ is not None and "Could not" not in text:
        text = f"{text.splitlines()[0]} {error.__cause__}"
    return " ".join(line.strip() for line in text.splitlines()[:2])
