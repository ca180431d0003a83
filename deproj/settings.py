"""Settings: plain config nodes to checked dataclasses, and mistakes in them to one clear line."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.errors import UserError

__all__ = [
    *("CONF", "GROUPS", "SHIPPED", "compose_config", "differences", "explain"),
    *("foreign_classes", "leaves", "read_config", "settings", "unknown"),
]

CONF = Path(__file__).parents[1] / "conf"

GROUPS = ("selection", "feed", "model", "sd", "trainer", "logger", "experiment")
#: The classes that a config read back from a run may build. Others must be named by the user.
SHIPPED = {
    "selection": {f"deproj.selection.{name}" for name in ("AllTokens", "WordsEos", "WordsEosReversed", "EosOnward")},
    "feed": {"deproj.feed.Batch", "deproj.feed.Recursive"},
    "model": {"deproj.model.LSTMDeprojector.for_encoder", "deproj.model.MLPDeprojector.for_encoder"},
}

T = TypeVar("T")


def settings(cls: type[T], node: dict[str, Any], name: str) -> T:
    """A plain node of the config as a dataclass.

    Raises:
        UserError: for a key that the dataclass doesn't have, one that is missing, or a wrong type.
    """
    known = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in node:
        if key not in known:
            raise UserError(unknown(f"{name}.{key}", [f"{name}.{k}" for k in known]))
    try:
        merged: Any = OmegaConf.merge(OmegaConf.structured(cls), node)
        return cls(**{key: merged[key] for key in known})
    except OmegaConfBaseException as error:
        raise UserError(f"{name}.{error.key}: {str(error).splitlines()[0]}") from None


def unknown(key: str, known: Iterable[str]) -> str:
    """What to say of a key that isn't there, with the likeliest one meant."""
    known = sorted(known)
    near = get_close_matches(key, known, 1)
    return f"unknown setting {key!r}; " + (f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(known)}.")


def all_keys() -> set[str]:
    """Every setting that the shipped files hold, as dotted keys."""
    keys: set[str] = set()

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
        walk(content, "" if group == "." else f"{group}.")
        if group != ".":
            keys.add(group)
    return {key for key in keys if "._" not in key}


def typed(key: str, value: Any) -> str:
    """A setting as it is typed in a shell, whatever signs its value holds."""
    text = "null" if value is None else str(value)
    if isinstance(value, str) and not re.fullmatch(r"[\w/.:+-]+", text, re.ASCII):
        escaped = text.replace("'", "\\'")
        text = f"'{escaped}'"
    return shlex.quote(f"{key}={text}")


def explain(error: HydraException | OmegaConfBaseException) -> str:
    """A Hydra or OmegaConf error in one line."""
    text = str(error)
    if match := re.search(r"Could not find '([\w/-]+)/([^'/]*)'(.*)", text, re.DOTALL):
        group, choice, rest = match.groups()
        listed = rest.partition("Config search path")[0]
        options = [line.strip() for line in listed.splitlines() if line.startswith("\t")]
        more = " (others come with pip install 'deproj[sweeps]')" if group.startswith("hydra/") else ""
        return f"unknown {group}={choice}; allowed: {', '.join(options)}{more}."
    if match := re.search(r"Ambiguous value for argument '([^']+)'", text):
        return f"{match.group(1)} is several values, which is a sweep: add -m."
    if match := re.search(r"Could not override '([^']+)'", text):
        return unknown(match.group(1), all_keys())
    if isinstance(error, HydraException) and error.__cause__ is not None and "Could not" not in text:
        text = f"{text.splitlines()[0]} {error.__cause__}"
    return " ".join(line.strip() for line in text.splitlines()[:2])


def read_config(path: Path) -> dict[str, Any]:
    """The resolved config that lies in a run's folder."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    except Exception as error:  # the YAML library's own errors
        raise UserError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings.")
    # interpolations would read the environment of whoever opens the run
    if open_values := [key for key, value in leaves(content) if isinstance(value, str) and "${" in value]:
        raise UserError(f"{path} is not resolved: {open_values[0]} holds an interpolation; write its value there.")
    return {str(key): value for key, value in content.items()}


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config that are no containers, each with its dotted key."""
    if isinstance(node, (dict, list)):
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def compose_config(overrides: list[str]) -> dict[str, Any]:
    """The settings that ``deproj.train`` would go by, resolved.

    Raises:
        UserError: for a choice or a key that there isn't.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra  # within a run Hydra is set up already, and wouldn't be twice
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides, return_hydra_config=True)
        choices = {group: cfg.hydra.runtime.choices.get(group) for group in GROUPS}
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        composed = OmegaConf.to_container(cfg, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from None
    finally:
        GlobalHydra.instance().hydra = outer
    assert isinstance(composed, dict)
    return {**{str(key): value for key, value in composed.items()}, "choices": choices}


def foreign_classes(config: dict[str, Any], groups: Iterable[str]) -> list[str]:
    """The classes that groups of a config would build, however deep, and that are none of `SHIPPED`."""

    def targets(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "_target_" in node:
                yield str(node["_target_"])
            node = list(node.values())
        if isinstance(node, list):
            for value in node:
                yield from targets(value)

    return sorted({name for group in groups for name in targets(config.get(group)) if name not in SHIPPED[group]})


def differences(old: Any, new: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Settings that differ, by dotted key, old and new."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for name in {**old, **new}:
            found |= differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        return found
    return {} if old == new else {key: (old, new)}
