"""Reading checkpoints with their checksums."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from deproj.process.errors import UserError

__all__ = ["read_checkpoint"]


def read_checkpoint(path: Path, instead: str) -> dict[str, Any]:
    """Reads a checkpoint, weights-only, and checks its checksums, which torch writes and doesn't read.

    Args:
        instead: of using it, what a user may do where it is damaged.

    Raises:
        UserError: for one that is missing or damaged.
    """
    import torch  # a second to import, which those that read no checkpoint need not wait for

    try:
        with zipfile.ZipFile(path) as archive:
            if (part := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{part} does not match its checksum")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return content
    except FileNotFoundError:
        raise UserError(f"{path} is missing; {instead}, or delete the run's folder.") from None
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # what a damaged file raises depends on where it is damaged
        raise UserError(f"{path} is damaged ({type(error).__name__}); {instead}, or delete the run's folder.") from None
