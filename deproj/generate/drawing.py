"""States to pictures, those of the true states beside them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageOps
from PIL.Image import Image

from deproj.expression import Expression, Picture
from deproj.generate.asked import Asked
from deproj.process.errors import UserError
from deproj.process.progress import Phase

if TYPE_CHECKING:
    from torch import Tensor

    from deproj.pipeline import DeprojectorPipeline

__all__ = ["Drawing", "is_grey", "reference_row", "true_states", "use_sampler"]


class Drawing:
    """Draws states in chunks that fit.

    Args:
        phase: is told of each picture's steps.
    """

    def __init__(self, pipe: DeprojectorPipeline, negative: Expression, pictures: dict[str, Image], phase: Phase) -> None:
        self.pipe, self.negative, self.pictures, self.phase = pipe, negative, pictures, phase

    def __call__(self, states: Tensor, seeds: list[int]) -> Tensor:
        """Pictures (B, height, width, 3) uint8 of states (B, 77, D)."""
        import torch  # see `load`

        drawn = []
        for rows in torch.arange(len(states)).split(self.pipe.chunk):
            positive, negative = self.pipe.with_negative(states[rows], self.negative, self.pictures)
            chosen = [seeds[row] for row in rows.tolist()]
            drawn.append(self.pipe.draw(positive, negative, chosen, step=self.phase.advance))
        return torch.cat(drawn)


def use_sampler(pipe: DeprojectorPipeline, name: str) -> None:
    """Draws with a scheduler of diffusers, by its class's name."""
    import diffusers  # see `load`

    if type(pipe.scheduler).__name__ == name:
        return
    if not hasattr(diffusers, name):
        raise UserError(f"the picture was drawn with a {name}, which this diffusers ({diffusers.__version__}) hasn't.")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)


def true_states(pipe: DeprojectorPipeline, asked: Asked, args: argparse.Namespace) -> list[Tensor | None]:
    """True states of each picture that will be drawn, (77, D); None where there are none. Those of a strip are mixed."""
    import torch  # see `load`

    true = [None if one.plain is None else pipe.encoder([one.plain]).states[0] for one in asked.expressions]
    if args.between is None:
        return list(true)
    first, second = true
    if first is None or second is None:
        return []
    return [torch.lerp(first, second, k / (args.steps - 1)) for k in range(args.steps)]


def reference_row(draw: Drawing, asked: list[Expression], true: list[Tensor | None], drawn: Tensor, seeds: list[int]) -> Tensor:
    """Pictures from the true states, like `drawn`; for a picture itself, it; grey where there is neither."""
    import torch  # see `load`

    row, count = torch.full_like(drawn, 232), len(drawn) // len(asked)
    for k, expression in enumerate(asked):
        if (image := lone_picture(expression)) is not None:
            row[k * count : (k + 1) * count] = fitted(image, drawn.shape[2], drawn.shape[1])
    if there := [k for k, one in enumerate(true) if one is not None]:
        places = [k * count + j for k in there for j in range(count)]
        states = torch.stack([one for one in true if one is not None]).repeat_interleave(count, 0)
        row[places] = draw(states, [seeds[place] for place in places])
    return row


def is_grey(expression: Expression, true: list[Tensor | None], args: argparse.Namespace) -> bool:
    """Whether there is nothing to draw for an expression in the row of the true states; a strip's are mixed of its ends'."""
    if args.between is not None:
        return not true
    return expression.plain is None and lone_picture(expression) is None


def lone_picture(expression: Expression) -> Image | None:
    """The picture that an expression is, if it is nothing else."""
    if len(expression.terms) == 1:
        weight, atom = expression.terms[0]
        if weight == 1 and isinstance(atom, Picture):
            return atom.image
    return None


def fitted(image: Image, width: int, height: int) -> Tensor:
    """A picture as (height, width, 3) uint8, its middle cut out."""
    import torch  # see `load`

    return torch.from_numpy(np.array(ImageOps.fit(image, (width, height))))
