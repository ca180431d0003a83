"""Which Stable Diffusion a deprojector belongs to, where nobody says so, and which of two arguments is which."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deproj.model.base import Deprojector
from deproj.pixel import MODELS, shipped
from deproj.process.errors import UserError
from deproj.runs.folder import RunFolder
from deproj.settings.inside import settings_inside

__all__ = ["told_apart", "world_of"]

NAME = "pixel"  # of the world that ships


def is_deprojector(given: Any) -> bool:
    """Whether something is a deprojector for certain: a model, a shipped name, a run's folder or an exported model's."""
    if isinstance(given, Deprojector):
        return True
    if not isinstance(given, (str, Path)):
        return False
    folder = Path(given)
    return str(given) in shipped() or RunFolder(folder).is_run or RunFolder(folder).model.is_dir() or is_exported(folder)


def is_exported(folder: Path) -> bool:
    return (folder / "config.json").is_file() and (folder / "model.safetensors").is_file()


def is_sd(given: Any) -> bool:
    """Whether something is a Stable Diffusion for certain: ``pixel``, a folder of diffusers', a single file, or settings."""
    if isinstance(given, (str, Path)):
        path = Path(given)
        return str(given) == NAME or (path / "model_index.json").is_file() or path.is_file()
    return given is not None and not isinstance(given, Deprojector)


def told_apart(sd: Any, deprojector: Any) -> tuple[Any, Any]:
    """A Stable Diffusion, or None, and a deprojector as `from_pretrained` was given them; the first alone may be either.

    Raises:
        UserError: where they are swapped, or there is no deprojector.
    """
    if isinstance(sd, (str, Path)) and settings_inside(sd) is not None:  # a saved pipeline, which is both
        return (None, sd) if deprojector is None else (sd, deprojector)
    if deprojector is None and not is_sd(sd):
        sd, deprojector = None, sd
    if deprojector is None or (sd is None and is_sd(deprojector)):
        raise UserError(f"name a deprojector: a run's folder, an exported model's, a hub id, or one of {', '.join(shipped())}.")
    if is_deprojector(sd) and is_deprojector(deprojector):
        raise UserError(f"{shown(sd)} is a deprojector, no Stable Diffusion; leave it out, or name one: {NAME!r}.")
    if is_deprojector(sd) or is_sd(deprojector):
        right = f"from_pretrained({shown(deprojector)}, {shown(sd)})"
        raise UserError(f"the two are swapped; the Stable Diffusion comes first: {right}.")
    return sd, deprojector


def shown(given: Any) -> str:
    """An argument as it is typed."""
    if isinstance(given, (str, Path)):
        return repr(str(given))
    return "model" if isinstance(given, Deprojector) else "sd"


def world_of(deprojector: str | Path | Deprojector) -> dict[str, Any] | str:
    """The Stable Diffusion that a deprojector was trained for: a run's config, or ``pixel`` where it is the shipped world's.

    Raises:
        UserError: where it isn't known.
    """
    if not isinstance(deprojector, Deprojector):
        if (inside := settings_inside(deprojector)) is not None:
            return inside
        run = RunFolder(Path(deprojector))
        if run.is_run:
            return run.read_config()
        if not Path(deprojector).exists() and str(deprojector) in shipped():
            return NAME
    model = deprojector if isinstance(deprojector, Deprojector) else Deprojector.from_pretrained(deprojector)
    if model.provenance.get("encoder") in pixel_encoders():
        return NAME
    raise UserError(
        f"{shown(deprojector)} doesn't say which Stable Diffusion it was trained for; name it: "
        f"from_pretrained(sd, {shown(deprojector)})."
    )


def pixel_encoders() -> set[Any]:
    """The hash of the pixel world's text encoder, as the shipped models hold it."""
    configs = (json.loads((MODELS / name / "config.json").read_text(encoding="utf-8")) for name in shipped())
    return {config["provenance"]["encoder"] for config in configs}
