"""Runs of earlier versions: the settings that they lack, with what these did."""

from __future__ import annotations

from typing import Any

__all__ = ["completed"]

ADDED: dict[str, dict[str, Any]] = {
    "data": {"marks": "keep", "parts": 2, "variants": 1, "pictures": None},
    "sd": {"config": None, "tokenizer": None, "clip_skip": 1, "textual_inversions": []},
    "objective": {"_target_": "deproj.training.objective.States"},
    "optimizer": {"schedule": "constant"},
    "choices": {"objective": "states"},
}


def completed(config: dict[str, Any]) -> dict[str, Any]:
    """A run's settings, those of today that it lacks added; settings of another shape stay as they are."""
    whole = {"objective": {}} | config
    return {
        name: {**ADDED[name], **node} if name in ADDED and isinstance(node, dict) and (name != "objective" or not node) else node
        for name, node in whole.items()
    }
