"""What a run's settings change: those by which it differs from a run that sets nothing."""

from __future__ import annotations

from typing import Any

from deproj.settings.compose import compose_config, differences

__all__ = ["default_settings", "distinguishes", "distinguishing", "value_at"]

#: What does not distinguish settings: where and how long it ran, how it was shown, and its seed.
NO_SETTING = (
    *("seed", "resume", "render", "evaluate", "logger", "choices", "data.cache", "data.keep"),
    *("trainer.accelerator", "trainer.progress", "trainer.cuda_graphs", "trainer.devices", "trainer.nodes"),
    *("selection", "feed", "init_from", "sd", "model", "objective"),
)


def default_settings() -> dict[str, Any]:
    """The settings of a run that sets nothing."""
    return compose_config([])


def distinguishing(defaults: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run that differ from the default ones and distinguish it from other runs, by dotted key.

    Args:
        defaults: of `default_settings`.

    Raises:
        KeyError: for what are no settings of a run.
    """
    found = {key: new for key, (_, new) in differences(defaults, config).items() if distinguishes(key)}
    return found | ({"init_from": "another run"} if config["init_from"] else {})


def distinguishes(key: str) -> bool:
    """Whether a setting distinguishes runs."""
    own = key.startswith(("model.", "selection.", "feed.", "objective.")) and not key.endswith("._target_")
    return own or not key.startswith(NO_SETTING)


def value_at(config: dict[str, Any], key: str) -> Any:
    """A setting by its dotted key; None where there is none."""
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node
