"""The data settings of a run, and the texts that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deproj.process.errors import UserError
from deproj.settings.nodes import settings

if TYPE_CHECKING:
    from deproj.data.batches import DataSettings
    from deproj.data.sources import PromptSource

__all__ = ["open_source"]


def open_source(config: dict[str, Any]) -> tuple[DataSettings, PromptSource]:
    """The data settings of a run and the texts they name."""
    from deproj.data.batches import DataSettings
    from deproj.data.sources import open_prompts

    chosen = settings(DataSettings, config["data"], "data")
    if not chosen.prompts:
        raise UserError(
            f"sd={config['sd']['name']} has no prompts of its own; name yours: data.prompts=captions.txt (or grammar)."
        )
    return chosen, open_prompts(chosen.prompts, chosen.column)
