"""What is to be drawn, as the command line asks for it."""

from __future__ import annotations

import argparse
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from PIL.Image import Image

from deproj.data.captions.open import read_captions
from deproj.draw.stamp import Stamp
from deproj.expression import Expression, Named, between, parse
from deproj.process.errors import UserError

__all__ = ["Asked", "check", "read_prompts", "repeated"]

#: Seeds are below this.
SEEDS = 2**63


@dataclass(frozen=True)
class Asked:
    """What is to be drawn.

    Attributes:
        labels: one an expression.
        expressions: with their pictures in them.
        negative: what is to be avoided.
        pictures: by the names that prompts call them by.
    """

    labels: list[str]
    expressions: list[Expression]
    negative: Expression
    pictures: dict[str, Image]

    @classmethod
    def of(cls, args: argparse.Namespace) -> Asked:
        """Reads prompts and pictures.

        Raises:
            UserError: for what can't be read, and where there is nothing to draw.
        """
        prompts, negative = read_prompts(args), parse(args.negative)
        pictures = named_pictures(args.image)
        called = {name for expression in (negative, *(expression for _, expression in prompts)) for name in expression.names}
        if args.between is not None and (unused := [name for name in pictures if name not in called]):
            raise UserError(f"no prompt of --between and --negative calls <{unused[0]}>; leave that picture out.")
        prompts += [(f"<{name}>", Expression(((1.0, Named(name)),))) for name in pictures if name not in called]
        if not prompts:
            raise UserError("there is nothing to draw; give a prompt, --file, --image or --between.")
        expressions = [expression.with_pictures(pictures) for _, expression in prompts]
        return cls([text for text, _ in prompts], expressions, negative.with_pictures(pictures), pictures)

    def strip(self, count: int) -> Asked:
        """The steps from the first expression to the second, labelled by their shares."""
        shares = [k / (count - 1) for k in range(count)]
        labels = [self.labels[0], *(f"{share:.0%}" for share in shares[1:-1]), self.labels[1]]
        first, second = self.expressions
        return replace(self, labels=labels, expressions=[between(first, second, share) for share in shares])


def read_prompts(args: argparse.Namespace) -> list[tuple[str, Expression]]:
    """What is to be drawn: labels and expressions."""
    texts = list(args.prompts)
    if args.file is not None:
        read = read_captions(str(args.file))
        if read.reading.altered:
            print(read)
        texts += read.texts()
    if args.between is not None:
        if texts:
            raise UserError("--between draws its own two prompts; leave the others out.")
        texts = list(args.between)
    found: list[tuple[str, Expression]] = []
    for text in texts:
        expression = parse(text)
        if not expression.terms:
            raise UserError(f"prompt {len(found) + 1} is empty; for the empty prompt itself write '\"\"'.")
        found.append((text, expression))
    return found


def named_pictures(paths: list[Path]) -> dict[str, Image]:
    """Pictures by their files' names."""
    from deproj.clip.images import open_picture  # imports torch: see `load`

    pictures: dict[str, Image] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in paths:
            if path.stem in pictures:
                raise UserError(f"two pictures are named {path.stem}; rename one of them.")
            pictures[path.stem] = open_picture(path)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return pictures


def repeated(args: argparse.Namespace, stamp: Stamp) -> argparse.Namespace:
    """The options that draw a picture once more, but for those that are given too.

    Raises:
        UserError: for options that the picture itself decides.
    """
    if args.prompts or args.file or args.between or args.count != 1 or args.seed is not None:
        raise UserError("--again repeats one picture; leave prompts, --file, --between, --count and --seed out.")
    again = argparse.Namespace(**vars(args))
    again.model, again.sd = args.model or stamp.model, args.sd or (None if stamp.sd == "pixel" else stamp.sd)
    again.negative, again.seed = args.negative or stamp.negative, stamp.seed
    again.strength = stamp.strength if args.strength is None else args.strength
    again.guidance = stamp.guidance if args.guidance is None else args.guidance
    again.sampler_steps = stamp.steps if args.sampler_steps is None else args.sampler_steps
    again.prompts = [stamp.prompt] if stamp.to is None else [stamp.prompt, stamp.to]
    return again


def check(args: argparse.Namespace) -> None:
    """Refuses options out of range, before anything is loaded."""
    if args.count < 1:
        raise UserError(f"--count is at least 1; got {args.count}.")
    if not 0 <= args.seed < SEEDS - args.count:
        raise UserError(f"--seed is 0 or more, and below 2⁶³ for every picture; got {args.seed}.")
    if args.steps < 2:
        raise UserError(f"--steps is at least 2, the pictures of a strip; got {args.steps} (the sampler's are --sampler-steps).")
    if args.save_conditioning is not None and args.save_conditioning.suffix != ".safetensors":
        raise UserError(f"--save-conditioning is a .safetensors file; got {args.save_conditioning}.")
    if not 0 <= args.strength <= 1:
        raise UserError(f"--strength is 0 to 1; got {args.strength}.")
