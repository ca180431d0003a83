"""Whether hair and eyes are of one colour: a U-Net that is trained too briefly mixes the colours that a prompt leaves open."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deproj.pixel.scenes import ATTRIBUTES, BOY, EYE, GIRL, HAIR, NAMES, WHO, Scenes, draw

__all__ = ["second_colours", "two_coloured"]

#: A second colour counts from this share of the hair, or of the eyes, on. Of 752 drawings that had been through the VAE none
#: had as much; two eyes of different colours have half.
LEAST = 0.2


def second_colours(pictures: Tensor, scenes: Scenes) -> Tensor:
    """The share of a second colour in the hair and in the eyes.

    The pixels that change with the colour in the scene's own drawing are hair, or eyes. Each counts for the colour that it is
    nearest to.

    Args:
        pictures: (B, 32, 32, 3) uint8.
        scenes: what they show, as `deproj.pixel.redraw.redraw` finds it.

    Returns:
        Shares of hair and of eyes, (B, 2); nan where neither a girl nor a boy is alone in the picture.
    """
    wanted, found = pictures.numpy().astype(np.float32), np.full((len(pictures), 2), np.nan, np.float32)
    alone = np.isin(scenes.values[:, WHO], (GIRL, BOY))
    for place, column in enumerate((HAIR, EYE)):
        values = np.repeat(scenes.values[None], len(ATTRIBUTES[NAMES[column]]), 0)
        values[:, :, column] = 1 + np.arange(len(values))[:, None]
        drawn = np.stack([draw(Scenes(each, scenes.style, scenes.tint)) for each in values]).astype(np.float32)
        of_colour = (drawn != drawn[:1]).any((0, 4))
        nearest = np.square(drawn - wanted).sum(-1).argmin(0)
        counts = np.stack([((nearest == k) & of_colour).sum((1, 2)) for k in range(len(values))])
        share = np.sort(counts, 0)[-2] / np.maximum(counts.sum(0), 1)
        found[alone, place] = share[alone]
    return torch.from_numpy(found)


def two_coloured(pictures: Tensor, scenes: Scenes) -> Tensor:
    """Whether hair or eyes are of two colours, (B,) 0 or 1; nan where neither a girl nor a boy is alone in the picture."""
    shares = second_colours(pictures, scenes)
    return torch.where(shares.isnan().any(1), torch.nan, (shares >= LEAST).any(1).float())
