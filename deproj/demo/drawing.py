"""From the page's settings to pictures, as files that say what made them."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL.Image import Image, fromarray

from deproj.clip.pictures import fingerprint, to_rgb
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


def expression_of(
    settings: Settings, picture: Image | None, share: float | None = None, words: Collection[str] = ()
) -> Expression:
    """The weighted sum of the rows and the picture, and that share of the way to the prompt at the end.

    Args:
        words: in brackets that the text encoder knows, as of textual inversions.

    Raises:
        UserError: for a prompt that cannot be read, one that calls a picture that isn't there, and for nothing at all.
    """
    seen = None if picture is None else to_rgb(picture, "the picture")
    total, called = Expression(), False
    for number, (prompt, weight) in enumerate(zip(settings.prompts, settings.weights, strict=True), 1):
        if prompt.strip() and weight:
            with field(f"prompt {number}" if number > 1 else ""):
                called = called or bool(parse(prompt).called(words))
                total += read(prompt, seen, words) * weight
    if seen is not None and settings.picture_weight and not called:
        total += of_picture(seen) * settings.picture_weight
    if not total.terms:
        raise UserError("there is nothing to draw yet: type a prompt, or drop a picture in.")
    if not settings.to.strip():
        return total
    with field("the prompt at the end"):
        end = read(settings.to, seen, words)
    return between(total, end, settings.share if share is None else share)


@contextmanager
def field(name: str) -> Iterator[None]:
    """Says in which field of the page a mistake is; the first prompt goes without saying."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}" if name else str(error)) from None


def read(prompt: str, picture: Image | None, words: Collection[str]) -> Expression:
    """What a prompt says, its names, as in ``<photo>``, all meaning the picture, but for words of the text encoder."""
    expression = parse(prompt)
    names = expression.called(words)
    if names and picture is None:
        if hints := hints_at([prompt]):
            raise UserError(hints[0])
        name = sorted(names)[0]
        raise UserError(f"<{name}> stands for a picture: drop one in under “a picture”, or leave <{name}> out.")
    return expression.with_pictures({} if picture is None else dict.fromkeys(names, picture), words)


def draw(pipes: Pipes, settings: Settings, start: Settings, picture: Image | None, folder: Path) -> Drawn:
    """Draws with each chosen model, and from the true states where there are any; a strip in `STEPS` pictures from one seed.

    Args:
        start: what links leave out.
        folder: of the files.

    Raises:
        UserError: for settings that nothing can be drawn from.
    """
    if not settings.models:
        raise UserError("there is nothing to draw with: choose a model.")
    strip = settings.strip
    if strip and not settings.to.strip():
        raise UserError("the whole way goes from one prompt to another: type the prompt at the end.")
    shares = [k / (STEPS - 1) for k in range(STEPS)] if strip else [settings.share]
    words = pipes[settings.models[0]].encoder.inversions
    expressions = [expression_of(settings, picture, share, words) for share in shares]
    shares = shares if strip else shares * settings.count
    seeds = [settings.seed] * len(shares) if strip else [settings.seed + k for k in range(settings.count)]
    each = 1 if strip else settings.count
    said = hints_at([text for text in (*settings.prompts, settings.to, settings.negative) if text.strip()])
    query, files = settings.query(start), dict[str, list[Path]]()
    plain = [expression.plain for expression in expressions]
    if None not in plain:
        pipe = pipes[settings.models[0]]
        states = pipe.encoder([text or "" for text in plain]).states.repeat_interleave(each, 0)
        base = stamp_of(pipe, settings.models[0], settings, picture)
        files[TRUE_STATES] = write(pipe, states, replace(base, strength=0.0), query, seeds, shares, folder)
    else:
        said.append("There is no picture of true states here: only a text, or a sum of texts, has true states.")
    for name in settings.models:
        pipe = pipes[name]
        embedded = pipe.embed(expressions)
        said += pipe.cautions(expressions, embedded, vocabulary=False)
        states = pipe.blend(expressions, embedded, settings.strength).repeat_interleave(each, 0)
        files[name] = write(pipe, states, stamp_of(pipe, name, settings, picture), query, seeds, shares, folder)
    if picture is not None:
        said.append("The link does not hold the picture.")
    return Drawn(files, list(dict.fromkeys(said)))


def stamp_of(pipe: DeprojectorPipeline, name: str, settings: Settings, picture: Image | None) -> Stamp:
    """What makes the pictures of a model, but for seed, size and their shares of a way."""
    prompt = str(expression_of(replace(settings, to=""), picture, words=pipe.encoder.inversions))
    called = {name for text in (prompt, settings.to) for name in parse(text).called(pipe.encoder.inversions)}
    pictures = {} if picture is None else dict.fromkeys(called, fingerprint(to_rgb(picture)))
    return Stamp(
        prompt, settings.negative, 0, pipe.steps, settings.guidance, type(pipe.scheduler).__name__, settings.strength, name,
        pipe.model.weights_hash, pipe.path, pipe.encoder.hash, 0, 0, settings.to.strip() or None, settings.share, pictures,
    )  # fmt: skip


def write(
    pipe: DeprojectorPipeline,
    states: torch.Tensor,
    base: Stamp,
    query: str,
    seeds: list[int],
    shares: list[float],
    folder: Path,
) -> list[Path]:
    """Draws states (B, 77, D), and writes a PNG each that says what made it.

    Args:
        query: the page's settings as a link's.
        seeds, shares: of each picture.
    """
    files = []
    with field("what to avoid"):
        positive, negative = pipe.with_negative(states, base.negative)
    for seed, share, pixels in zip(seeds, shares, pipe.draw(positive, negative, seeds, base.guidance), strict=True):
        image = fromarray(pixels.numpy())
        stamp = replace(base, seed=seed, share=share, width=image.width, height=image.height)
        path = folder / f"{secrets.token_hex(8)}.png"
        save_image(enlarged(image, SHOWN), path, stamp.notes | {PAGE: query})
        files.append(path)
    return files
