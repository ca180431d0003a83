"""The settings as Hydra composes them, and as a run's folder holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from deproj.process.errors import UserError
from deproj.settings.messages import explain
from deproj.settings.nodes import leaves
from deproj.settings.shipped import CONF, GROUPS, named_by_time

__all__ = ["compose_config", "compose_run", "differences", "read_config"]


def read_config(path: Path) -> dict[str, Any]:
    """The resolved config that lies in a run's folder."""
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, OmegaConfBaseException) as error:
        raise UserError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    except Exception as error:  # the YAML library's own errors
        raise UserError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings.")
    # interpolations would read the environment of whoever opens the run
    if open_values := [key for key, value in leaves(content) if isinstance(value, str) and "${" in value]:
        raise UserError(f"{path} is not resolved: {open_values[0]} holds an interpolation; write its value there.")
    return {str(key): value for key, value in content.items()}


def compose_config(overrides: list[str]) -> dict[str, Any]:
    """The settings that ``deproj.train`` would go by, resolved.

    Raises:
        UserError: for a choice or a key that there isn't.
    """
    return compose_run(overrides)[0]


def compose_run(overrides: list[str]) -> tuple[dict[str, Any], Path | None]:
    """The settings that ``deproj.train`` would go by, resolved, and its folder: None for one named by the time.

    Raises:
        UserError: for a choice or a key that there isn't.
    """
    from hydra import compose, initialize_config_dir  # half a second, which `--help` need not wait for
    from hydra.core.global_hydra import GlobalHydra

    outer = GlobalHydra.instance().hydra  # within a run Hydra is set up already, and wouldn't be twice
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides, return_hydra_config=True)
        choices = {group: cfg.hydra.runtime.choices.get(group) for group in GROUPS}
        folder = None if named_by_time(cfg.hydra) else Path(str(cfg.hydra.run.dir))
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]
        composed = OmegaConf.to_container(cfg, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(explain(error)) from None
    finally:
        GlobalHydra.instance().hydra = outer
    assert isinstance(composed, dict)
    return {**{str(key): value for key, value in composed.items()}, "choices": choices}, folder


def differences(old: Any, new: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Settings that differ, by dotted key, old and new."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: dict[str, tuple[Any, Any]] = {}
        for name in {**old, **new}:
            found |= differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
        return found
    return {} if old == new else {key: (old, new)}
