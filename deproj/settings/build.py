"""Config nodes to the objects that they describe."""

from __future__ import annotations

from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from deproj.process.errors import UserError
from deproj.settings.nodes import leaves

__all__ = ["build"]


def build(node: dict[str, Any], kind: type, name: str) -> Any:
    """The object that a config group describes.

    Args:
        node: resolved. An interpolation in it would be resolved by Hydra, after the check of what it may build, and can run
            anything (``${oc.create:...}``).
    """
    from hydra.utils import instantiate  # half a second, which `--help` need not wait for

    if open_values := [key for key, value in leaves(node) if isinstance(value, str) and "${" in value]:
        raise UserError(f"{name}.{open_values[0]} holds an interpolation; write its value there.")
    try:
        made = instantiate(node, _convert_="all")
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{name} cannot be built: {' '.join(str(cause or error).split())[:300]}") from None
    if not isinstance(made, kind):
        raise UserError(f"{name} must be a {kind.__name__}; {node.get('_target_')} makes a {type(made).__name__}.")
    return made
