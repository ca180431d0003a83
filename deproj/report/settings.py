"""Copies of what says how each result was made, beside the page, so that the report's folder can be sent on as it is."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from deproj.measure.results import Setting

__all__ = ["copy_settings"]

FOLDER = "settings"


def copy_settings(found: Sequence[Setting], out: Path) -> dict[Path, str]:
    """Copies the settings of all results into a report's folder, in the place of those of a report before.

    Returns:
        Where the copies are, from that folder, by the files that they are copies of.
    """
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("[0-9][0-9][0-9]-*"):
        path.unlink()
    files = [result.file for setting in found for result in setting.results]
    copies = {file: f"{number:03d}-{file.name}" for number, file in enumerate(files, 1)}
    for file, name in copies.items():
        shutil.copyfile(file, folder / name)
    return {file: f"{FOLDER}/{name}" for file, name in copies.items()}
