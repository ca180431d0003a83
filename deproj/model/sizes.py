"""Sizes of models, checked."""

from __future__ import annotations

from typing import Any

from deproj.process.errors import UserError

__all__ = ["check_sizes"]


def check_sizes(config: Any, *names: str) -> None:
    """Refuses sizes of a model's config that are no whole numbers from 1 on."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UserError(f"the model's {name} is a whole number, at least 1; got {value!r}.")
