"""What is to be drawn, as the command line asks for it."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from PIL.Image import Image

from deproj.clip.pictures import fingerprint
from deproj.data.captions.open import read_captions
from deproj.draw.settings import check_sampling
from deproj.draw.stamp import Stamp
from deproj.expression import Expression, Named, between, parse
from deproj.process.errors import UserError

__all__ = ["Asked", "check", "check_order", "check_pictures", "read_prompts", "repeated"]

#: Seeds are below this.
SEEDS = 2**63
#: What may be a model of the Hub.
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Asked:
    """What is to be drawn.

    Attributes:
        labels: one an expression.
        expressions: of them; `resolved` puts their pictures in.
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
        return cls([text for text, _ in prompts], [expression for _, expression in prompts], negative, pictures)

    def resolved(self, words: Collection[str] = ()) -> Asked:
        """With the pictures in the place of their names.

        Args:
            words: that the text encoder knows, brackets and all, as of textual inversions.

        Raises:
            UserError: for a name that is neither.
        """
        first, *others = [e.with_pictures(self.pictures, words) for e in (self.negative, *self.expressions)]
        return replace(self, expressions=others, negative=first)

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
    """The options that draw a picture once more, but for those that are given too: with another seed, a variation of it.

    Raises:
        UserError: for options that the picture itself decides.
    """
    if args.prompts or args.file or args.between:
        raise UserError("--again takes its prompt from the picture; leave prompts, --file and --between out.")
    again = argparse.Namespace(**vars(args))
    again.model, again.sd = args.model or stamp.model, args.sd or (None if stamp.sd == "pixel" else stamp.sd)
    again.negative = stamp.negative if args.negative is None else args.negative
    again.seed = stamp.seed if args.seed is None else args.seed
    again.strength = stamp.strength if args.strength is None else args.strength
    again.guidance = stamp.guidance if args.guidance is None else args.guidance
    again.sampler_steps = stamp.steps if args.sampler_steps is None else args.sampler_steps
    again.prompts = [stamp.prompt] if stamp.to is None else [stamp.prompt, stamp.to]
    called = {name for text in (*again.prompts, again.negative) for name in parse(text).names}
    if missing := sorted((called & stamp.pictures.keys()) - {path.stem for path in args.image}):
        raise UserError(f"{args.again} was drawn with the picture <{missing[0]}>: hand it over, --image PATH/{missing[0]}.png.")
    return again


def check_pictures(pictures: dict[str, Image], stamp: Stamp) -> None:
    """Refuses pictures that are not those that a picture was drawn with."""
    for name, noted in stamp.pictures.items():
        if name in pictures and fingerprint(pictures[name]) != noted:
            raise UserError(f"the picture <{name}> is another one than the picture was drawn with that is to be drawn again.")


def check_order(args: argparse.Namespace, typed: str | None, shipped: Collection[str]) -> None:
    """Refuses a prompt where the model should stand.

    Args:
        typed: the model as it was typed, where the picture that is drawn again doesn't name it.
        shipped: short names of models.
    """

    def is_model(text: str) -> bool:
        return text in shipped or os.path.isdir(text)

    if is_model(args.model) or HUB_ID.fullmatch(args.model):
        return
    if args.again is not None and typed is None:
        raise UserError(
            f"{args.model}, which drew {args.again}, isn't here; name it where it is now: "
            f"python -m deproj.generate MODEL --again {args.again}"
        )
    if args.again is not None:
        raise UserError(f"--again takes prompt and model from the picture; leave {typed!r} out, which is no model.")
    if swapped := [text for text in args.prompts if is_model(text)]:
        raise UserError(f"the model stands first, then prompts: python -m deproj.generate {swapped[0]} {args.model!r}")


def check(args: argparse.Namespace) -> None:
    """Refuses options out of range, before anything is loaded."""
    if args.count < 1:
        raise UserError(f"--count is at least 1; got {args.count}.")
    if not 0 <= args.seed < SEEDS - args.count:
        raise UserError(f"--seed is 0 or more, and below 2⁶³ for every picture; got {args.seed}.")
    if args.steps is not None and args.between is None:
        raise UserError("--steps are the pictures of a strip, which --between draws; the sampler's are --sampler-steps.")
    if args.steps is not None and args.steps < 2:
        raise UserError(f"--steps is at least 2, the pictures of a strip; got {args.steps} (the sampler's are --sampler-steps).")
    steps, guidance = (1 if value is None else value for value in (args.sampler_steps, args.guidance))
    check_sampling(steps, guidance, "--sampler-steps", "--guidance")
    if args.save_conditioning is not None and args.save_conditioning.suffix != ".safetensors":
        raise UserError(f"--save-conditioning is a .safetensors file; got {args.save_conditioning}.")
    if not 0 <= args.strength <= 1:
        raise UserError(f"--strength is 0 to 1; got {args.strength}.")
