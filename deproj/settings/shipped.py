"""Where the settings that ship are, and which classes they name."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CONF", "GROUPS", "SHIPPED"]

CONF = Path(__file__).parents[2] / "conf"
GROUPS = ("selection", "feed", "model", "sd", "trainer", "logger", "experiment")
#: The classes that a config read back from a run may build. Others must be named by the user.
SHIPPED = {
    "selection": {f"deproj.selection.{name}" for name in ("AllTokens", "WordsEos", "WordsEosReversed", "EosOnward")},
    "feed": {"deproj.feed.Batch", "deproj.feed.Recursive"},
    "model": {"deproj.model.LSTMDeprojector.for_encoder", "deproj.model.MLPDeprojector.for_encoder"},
}
