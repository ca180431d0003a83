"""The pixel world: a complete miniature Stable Diffusion that ships with the project. Imports `deproj.process`."""

from __future__ import annotations

from pathlib import Path

from deproj.process.files import intact

__all__ = ["MODELS", "NAME", "WEIGHTS", "local", "shipped", "shipped_folder"]

#: What users name it by, where a folder or hub id is asked for.
NAME = "pixel"
#: The shipped diffusers pipeline folder.
WEIGHTS = Path(__file__).parent / "weights"
#: The folder of the shipped deprojectors.
MODELS = Path(__file__).parent / "models"


def shipped() -> list[str]:
    """Short names of the models that come with the package, all trained in the pixel world, the best first."""
    names = sorted(path.parent.name for path in MODELS.glob("*/config.json"))
    return sorted(names, key=lambda name: (name != "best", name != "small"))


def shipped_folder() -> Path:
    """The shipped folder, once its weights have been checked.

    Raises:
        UserError: for weights that are missing or damaged.
    """
    return intact(WEIGHTS)


def local(source: str | Path, part: str = ".") -> str:
    """A folder or hub id as it is; for the name ``pixel`` a part of the shipped folder."""
    return str(shipped_folder() / part) if str(source) == NAME else str(source)
