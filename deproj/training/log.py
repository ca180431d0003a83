"""What a run tells on its console, in its ``train.log`` too: of a job on a cluster often nothing else is left."""

from __future__ import annotations

import logging

__all__ = ["LOG", "begin", "tell"]

#: Writes to the run's file alone.
LOG = logging.getLogger("deproj.told")


def begin(first: bool) -> None:
    """Has lines go to the file that Hydra has opened for the job at hand, and not to its console, which has them already.

    Args:
        first: whether this is the run's first process; others write nowhere.
    """
    LOG.handlers = [handler for handler in logging.getLogger().handlers if first and isinstance(handler, logging.FileHandler)]
    LOG.propagate = False
    LOG.setLevel(logging.INFO)


def tell(line: str) -> None:
    """Prints a line, and logs it."""
    print(line)
    LOG.info(line)
