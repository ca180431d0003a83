"""Plain config nodes to checked dataclasses, and what a config may build."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.process.errors import UserError
from deproj.settings.mistakes import unknown
from deproj.settings.shipped import shipped_classes

__all__ = ["foreign_classes", "leaves", "settings"]

T = TypeVar("T")

#: OmegaConf's words for the types of values.
KINDS = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}


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
        return cls(**{key: plain(merged[key]) for key in known})
    except OmegaConfBaseException as error:
        raise UserError(explained(f"{name}.{error.key}", str(error).splitlines()[0])) from None


def explained(key: str, said: str) -> str:
    """What OmegaConf says of a value of the wrong type, in words."""
    if match := re.match(r"Value (?P<got>'.*') (?:of type '\w+' could not be converted to|is not a valid) (?P<kind>\w+)", said):
        return f"{key} is {KINDS.get(match['kind'], match['kind'])}; got {match['got']}."
    return f"{key}: {said}"


def plain(value: Any) -> Any:
    """Lists as Python's own."""
    return OmegaConf.to_container(value) if OmegaConf.is_list(value) else value


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config that hold no others, each with its dotted key."""
    if isinstance(node, (dict, list)) and node:
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(value, f"{key}.{name}" if key else str(name))
    else:
        yield key, node


def foreign_classes(config: dict[str, Any], groups: Iterable[str]) -> list[str]:
    """The classes that groups of a config would build, however deep, and that no shipped choice names."""

    def targets(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if "_target_" in node:
                yield str(node["_target_"])
            node = list(node.values())
        if isinstance(node, list):
            for value in node:
                yield from targets(value)

    return sorted({name for group in groups for name in targets(config.get(group)) if name not in shipped_classes(group)})
