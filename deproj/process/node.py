"""Which of several machines this is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from deproj.process.errors import UserError

__all__ = ["is_first_node", "node_number"]


def node_number() -> int:
    """The number of this machine among those that SLURM or the user has started the command on.

    Raises:
        UserError: where the environment holds something else.
    """
    for name in ("SLURM_NODEID", "NODE_RANK"):
        if given := os.environ.get(name):
            if not given.isdecimal():
                raise UserError(f"{name} is the number of a machine, 0 or more; got {given!r}.")
            return int(given)
    return 0


def is_first_node(config: Mapping[str, Any]) -> bool:
    """Whether a command with these settings writes here: on one machine it does, whatever the environment calls it."""
    return (config.get("trainer") or {}).get("nodes", 1) == 1 or node_number() == 0
