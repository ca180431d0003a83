"""From the page's settings to pictures, as files that say what made them."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL.Image import Image, fromarray

from deproj.clip.images import to_rgb
from deproj.demo.settings import Settings
from deproj.draw.sheets import TRUE_STATES, enlarged, save_image
from deproj.draw.stamp import Stamp
from deproj.expression import Expression, between, hints_at, parse
from deproj.expression import picture as of_picture
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

__all__ = ["PAGE", "STEPS", "Drawn", "draw", "expression_of"]

#: Of the text chunk that holds the page's settings as a link's query.
PAGE = "deproj-page"
#: Side of a picture on the page, in pixels.
SHOWN = 512
#: Pictures of a strip.
STEPS = 6

Pipes = dict[str, DeprojectorPipeline]


@dataclass(frozen=True)
class Drawn:
    """Pictures by what drew them, the true states' among them where there are any, and what is to be said of them."""

    files: dict[str, list[Path]]
    said: list[str]


def expression_of(settings: Settings, picture: Image | None, share: float | None = None) -> Expression:
    """The weighted sum of the rows and the picture, and that share of the way to the prompt at the end.

    Raises:
        UserError: for a prompt that cannot be read, one that calls a picture that isn't there, and for nothing at all.
    """
    seen = None if picture is None else to_rgb(picture, "the picture")
    total, called = Expression(), False
    for prompt, weight in zip(settings.prompts, settings.weights, strict=True):
        if prompt.strip() and weight:
            read = parse(prompt)
            called = called or bool(read.names)
            total += with_picture(read, seen) * weight
    if seen is not None and settings.picture_weight and not called:
        total += of_picture(seen) * settings.picture_weight
    if not total.terms:
        raise UserError("there is nothing to draw yet: type a prompt, or drop a picture in.")
    if not settings.to.strip():
        return total
    end = with_picture(parse(settings.to), seen)
    return between(total, end, settings.share if share is None else share)


def with_picture(expression: Expression, picture: Image | None) -> Expression:
    """An expression whose names, as in ``<photo>``, all mean the picture."""
    if not (names := expression.names):
        return expression
    if picture is None:
        name = sorted(names)[0]
        raise UserError(f"<{name}> stands for a picture: drop one in under “a picture”, or leave <{name}> out.")
    return expression.with_pictures(dict.fromkeys(names, picture))


def draw(pipes: Pipes, settings: Settings, start: Settings, picture: Image | None, folder: Path, strip: bool = False) -> Drawn:
    """Draws with each chosen model, and from the true states where there are any.

    Args:
        start: what links leave out.
        folder: of the files.
        strip: whether to draw the whole way to the prompt at its end, in `STEPS` pictures from one seed.

    Raises:
        UserError: for settings that nothing can be drawn from.
    """
    if not settings.models:
        raise UserError("there is nothing to draw with: choose a model.")
    if strip and not settings.to.strip():
        raise UserError("a strip goes from one prompt to another: type the one at its end.")
    shares = [k / (STEPS - 1) for k in range(STEPS)] if strip else [settings.share]
    expressions = [expression_of(settings, picture, share) for share in shares]
    seeds = [settings.seed] * len(shares) if strip else [settings.seed + k for k in range(settings.count)]
    each = 1 if strip else settings.count
    said = hints_at([text for text in (*settings.prompts, settings.to, settings.negative) if text.strip()])
    query, files = settings.query(start), dict[str, list[Path]]()
    plain = [expression.plain for expression in expressions]
    if None not in plain:
        pipe = pipes[settings.models[0]]
        states = pipe.encoder([text or "" for text in plain]).states.repeat_interleave(each, 0)
        base = stamp_of(pipe, settings.models[0], settings, picture)
        files[TRUE_STATES] = write(pipe, states, replace(base, strength=0.0), query, seeds, folder)
    else:
        said.append("No true states: only a text, or a sum of texts, has any.")
    for name in settings.models:
        pipe = pipes[name]
        embedded = pipe.embed(expressions)
        said += pipe.cautions(expressions, embedded)
        states = pipe.blend(expressions, embedded, settings.strength).repeat_interleave(each, 0)
        files[name] = write(pipe, states, stamp_of(pipe, name, settings, picture), query, seeds, folder)
    if picture is not None:
        said.append("The link does not hold the picture.")
    return Drawn(files, list(dict.fromkeys(said)))


def stamp_of(pipe: DeprojectorPipeline, name: str, settings: Settings, picture: Image | None) -> Stamp:
    """What makes the pictures of a model, but for seed and size."""
    prompt = str(expression_of(replace(settings, to=""), picture))
    return Stamp(
        prompt, settings.negative, 0, pipe.steps, settings.guidance, type(pipe.scheduler).__name__, settings.strength, name,
        pipe.model.weights_hash, pipe.path, pipe.encoder.hash, 0, 0, settings.to or None, settings.share,
    )  # fmt: skip


def write(pipe: DeprojectorPipeline, states: torch.Tensor, base: Stamp, query: str, seeds: list[int], folder: Path) -> list[Path]:
    """Draws states (B, 77, D), and writes a PNG each that says what made it.

    Args:
        query: the page's settings as a link's.
    """
    files = []
    positive, negative = pipe.with_negative(states, base.negative)
    for seed, pixels in zip(seeds, pipe.draw(positive, negative, seeds, base.guidance), strict=True):
        image = fromarray(pixels.numpy())
        stamp = replace(base, seed=seed, width=image.width, height=image.height)
        path = folder / f"{secrets.token_hex(8)}.png"
        save_image(enlarged(image, SHOWN), path, stamp.notes | {PAGE: query})
        files.append(path)
    return files
