"""How far a picture is from anything that the scene code draws: noise, measured where the clean picture is known.

The attributes are read off the picture; what no caption describes (position, hair style, background, shades) is fitted.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deproj.pixel.reader import Reader
from deproj.pixel.scenes import ATTRIBUTES, NAMES, VARIANTS, Scenes, consistent, draw, sample_style
from deproj.process.progress import SILENT, Progress

__all__ = ["Redrawn", "redraw"]

#: Raised whenever another drawing is found to be the nearest, so that distances of before are not taken for ours.
VERSION = 1
#: Parts of `Scenes.style` that are tried together, each with its values: what is behind, where the character stands,
#: a girl's hair, a boy's.
STYLES = (
    {5: range(VARIANTS), 6: range(2)},
    {2: range(2), 3: range(-4, 5), 4: range(-1, 2)},
    {0: range(3)},
    {1: range(2)},
)
SHADES = np.linspace(0.05, 0.95, 6)


class Redrawn(NamedTuple):
    """The nearest drawings of B pictures.

    Attributes:
        drawings: (B, 32, 32, 3) uint8.
        distance: root mean square differences, (B,), in units of 1/255.
        scenes: what is drawn.
    """

    drawings: Tensor
    distance: Tensor
    scenes: Scenes


def redraw(pictures: Tensor, reader: Reader, starts: int = 8, sweeps: int = 2, progress: Progress = SILENT) -> Redrawn:
    """The nearest drawing of the attributes that are read off each picture.

    From the best of some random beginnings, one part of the style after another is set to its best value.

    Args:
        pictures: (B, 32, 32, 3) uint8.
        starts: random beginnings.
        sweeps: times that every part is gone over.
        progress: is told how many candidates have been drawn.
    """
    seen = reader.read(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1)
    index = [[0 if row[name][0] is None else 1 + ATTRIBUTES[name].index(row[name][0]) for name in NAMES] for row in seen]
    values = consistent(np.array(index, np.int8).reshape(-1, len(NAMES)))
    wanted, rng = pictures.numpy().astype(np.float32), np.random.default_rng(0)
    n = len(values)
    style, tint = sample_style(n, rng)
    best = np.full(n, np.inf)
    drawn = np.zeros_like(wanted)

    candidates = sum(math.prod(map(len, parts.values())) for parts in STYLES) + tint.shape[1] * len(SHADES)
    with progress.phase("measuring noise", starts + sweeps * candidates) as phase:

        def attempt(new_style: np.ndarray, new_tint: np.ndarray) -> None:
            """Takes over the candidates that are nearer than what is there."""
            made = draw(Scenes(values, new_style, new_tint)).astype(np.float32)
            far = np.square(made - wanted).mean((1, 2, 3))
            nearer = far < best
            best[nearer], drawn[nearer] = far[nearer], made[nearer]
            style[nearer], tint[nearer] = new_style[nearer], new_tint[nearer]
            phase.advance()

        attempt(style.copy(), tint.copy())
        for _ in range(starts - 1):
            attempt(*sample_style(n, rng))
        for _ in range(sweeps):
            for parts in STYLES:
                for together in itertools.product(*parts.values()):
                    changed = style.copy()
                    changed[:, list(parts)] = together
                    attempt(changed, tint.copy())
            for part in range(tint.shape[1]):
                for shade in SHADES:
                    shaded = tint.copy()
                    shaded[:, part] = shade
                    attempt(style.copy(), shaded)
    found = torch.from_numpy(drawn.astype(np.uint8)), torch.from_numpy(np.sqrt(best)).float()
    return Redrawn(*found, Scenes(values, style, tint))
