"""Scenes that show what captions ask for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deproj.pixel.grammar import asked
from deproj.pixel.scenes import ATTRIBUTES, NAMES, Scenes, consistent, sample

__all__ = ["scenes_of"]

#: Scenes tried for each caption: who is in it may be left open, and a boy can't wear the skirt that is asked for.
TRIES = 24


def scenes_of(texts: Sequence[str], rng: np.random.Generator) -> Scenes:
    """A scene for each caption that shows all that it asks for, as far as one scene can, and is random in all else.

    Captions that were joined may ask for two of a kind; one of them is shown.
    """
    drawn = sample(len(texts) * TRIES, rng)
    values = drawn.values.reshape(len(texts), TRIES, -1)
    kept = np.empty(len(texts), int)
    for row, text in enumerate(texts):
        wanted = {NAMES.index(name): 1 + ATTRIBUTES[name].index(value) for name, value in sorted(asked(text))}
        for column, value in wanted.items():
            values[row, :, column] = value
        values[row] = consistent(values[row])
        shown = sum((values[row, :, column] == value for column, value in wanted.items()), np.zeros(TRIES, int))
        kept[row] = row * TRIES + int(shown.argmax())
    return Scenes(values.reshape(len(drawn), -1)[kept], drawn.style[kept], drawn.tint[kept])
