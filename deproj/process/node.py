"""Which of several machines this is."""

from __future__ import annotations

import os

__all__ = ["node_number"]


def node_number() -> int:
    """The number of this machine among those that SLURM or the user has started the command on."""
    return int(os.environ.get("SLURM_NODEID") or os.environ.get("NODE_RANK") or 0)
