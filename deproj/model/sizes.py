"""Sizes of models, checked."""

from __future__ import annotations

from typing import Any

from deproj.process.errors import UserError
from deproj.process.numbers import as_whole

__all__ = ["check_sizes"]


def check_sizes(config: Any, *names: str) -> None:
    """Refuses sizes of a model's config that are no whole numbers from 1 on."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or (as_whole(value) or 0) < 1:
            raise UserError(f"the model's {name} is a whole number, at least 1; got {value!r}.")
