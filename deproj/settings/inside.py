"""The settings that stand in the folder of a saved pipeline (`deproj.draw.saved`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deproj.process.errors import UserError

__all__ = ["PIPELINE_FILE", "settings_inside"]

PIPELINE_FILE = "deproj.json"


def settings_inside(folder: str | Path) -> dict[str, Any] | None:
    """The config of a saved pipeline, with ``sd`` in it; None for what is none.

    Raises:
        UserError: for one that is damaged.
    """
    path = Path(folder) / PIPELINE_FILE
    if not path.is_file():
        return None
    try:
        node = dict(json.loads(path.read_text(encoding="utf-8"))["sd"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: {type(error).__name__}: {error}.") from None
    clip = None if node.get("clip") is None else str(Path(folder) / "clip")
    return {"sd": node | {"path": str(folder), "clip": clip}}
