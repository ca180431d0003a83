"""Where the settings that ship are, and which classes they name."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

__all__ = ["CONF", "GROUPS", "OBJECTS", "named_by_time", "shipped_classes"]

#: The settings that ship: in the package where it is installed, at the repository's top in a checkout.
CONF = next(path for top in (1, 2) if (path := Path(__file__).parents[top] / "conf").is_dir())
GROUPS = ("selection", "feed", "model", "objective", "sd", "trainer", "logger", "experiment")
#: The groups whose choices name a class.
OBJECTS = ("selection", "feed", "model", "objective")


def named_by_time(hydra: Any) -> bool:
    """Whether Hydra's settings leave the folder of a run to be named by the time, as conf/config.yaml does."""
    raw: Any = OmegaConf.to_container(hydra.run, resolve=False)
    return bool(raw["dir"] == "${deproj.run_dir:${resume}}")


@cache
def shipped_classes(group: str) -> frozenset[str]:
    """The classes that the shipped choices of a group name, and so all that a config read back from a run may build.

    Others must be named by the user.
    """
    nodes: Any = [OmegaConf.load(path) for path in sorted((CONF / group).glob("*.yaml"))]
    return frozenset(str(node.get("_target_")) for node in nodes)
