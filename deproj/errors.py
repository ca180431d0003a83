"""The one exception for a user's mistakes, and how a command ends on it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable

__all__ = ["UserError", "run_command"]


class UserError(ValueError):
    """What was got, what is allowed and what to do, in one or two lines; commands print it and exit with 1."""


def run_command(command: Callable[[], int | None]) -> int:
    """Runs a command; the user's mistakes become a line or two on stderr and exit code 1.

    Our own mistakes keep their traceback.
    """
    try:
        return command() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT):
            raise
        print(f"error: {error.strerror}: {error.filename}. Nothing was kept of what could not be written whole.", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
    return 1
