"""Arithmetic on embeddings, relative to the empty prompt: as Python objects, and as one text syntax.

An `Expression` is a weighted sum of differences to the empty prompt's embedding e0,

    e = sum(w_i (e_i - e0)) + e0

of texts, pictures and embeddings. Sums, weights, subtraction, means and interpolation are expressions again:

    text("1girl") + 1.2 * text("red hair") - "black skirt"      mean("cat", "maid")      between("cat maid", "1boy", 0.3)

As text, from what binds most loosely to what binds most tightly:

    a | b            the mean of the sides, of two or more
    a | b @ 0.3      interpolation: 70 % of the left side and 30 % of the right one
    a, b             sum; the commas 、 and ， part too
    -a               subtraction, at the beginning of a term
    a:1.2            weight
    (a, b)           what belongs together, as in (cat, maid):0.5
    <name>           a picture that is handed over by this name
    "a, b"           text as it stands, signs and all; "" is the empty prompt; a backslash takes the next character as it is

A term is embedded by itself, so commas mean composition: ``cat, maid`` is the sum of two embeddings, ``cat maid`` is one.
Nothing between two commas is passed over, and a blank text is the empty prompt.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from deproj.process.errors import UserError
from deproj.process.letters import check_encodable
from deproj.process.numbers import as_number
from deproj.texts import marks
from deproj.texts.benchmark import COMMAS

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from deproj.clip.encoder import TextEncoder

__all__ = [
    *("Atom", "Expression", "Named", "Picture", "PictureEmbedder", "Text", "Vector"),
    *("between", "embed", "expression_of", "hints_at", "mean", "parse", "picture", "text", "vector"),
]


@dataclass(frozen=True)
class Text:
    """A text that is embedded whole."""

    text: str


@dataclass(frozen=True)
class Named:
    """A picture that an expression calls by a name; `Expression.with_pictures` puts it in."""

    name: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, whose embedding CLIP's image encoder computes."""

    image: Image


@dataclass(frozen=True, eq=False)
class Vector:
    """An embedding, (D,)."""

    embedding: Tensor


Atom = Text | Named | Picture | Vector


class PictureEmbedder(Protocol):
    """Pictures (B) to embeddings, (B, D)."""

    def __call__(self, images: Sequence[Image], /) -> Tensor: ...


@dataclass(frozen=True)
class Expression:
    """A weighted sum of differences to the empty prompt; without terms, the empty prompt.

    Strings beside an operator are read as the syntax says: ``picture(p) + "red hair:1.2"``.

    Attributes:
        terms: weight and what it weighs.
    """

    terms: tuple[tuple[float, Atom], ...] = ()

    def __add__(self, other: Expression | str) -> Expression:
        return Expression(self.terms + expression_of(other).terms)

    def __radd__(self, other: str) -> Expression:
        return expression_of(other) + self

    def __sub__(self, other: Expression | str) -> Expression:
        return self + -expression_of(other)

    def __rsub__(self, other: str) -> Expression:
        return expression_of(other) - self

    def __neg__(self) -> Expression:
        return self * -1.0

    def __mul__(self, weight: float) -> Expression:
        number = as_number(weight)
        if number is None or not math.isfinite(number):
            raise UserError(f"a weight is a finite number; got {weight!r}.")
        return Expression(tuple((number * w, atom) for w, atom in self.terms))

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Expression:
        if not (number := as_number(divisor)):
            raise UserError(f"an expression is divided by a number other than 0; got {divisor!r}.")
        return self * (1 / number)

    def __str__(self) -> str:
        """In the text syntax. Pictures and embeddings, which have no name, are shown as ``<picture>`` and ``<embedding>``."""
        return ", ".join(written(weight, atom) for weight, atom in self.terms)

    def __repr__(self) -> str:
        return f"Expression({str(self)!r})"

    @property
    def plain(self) -> str | None:
        """The expression as one plain text, where it is nothing but a sum of texts, as ``cat maid`` is of ``cat, maid``."""
        if any(weight != 1 or not isinstance(atom, Text) for weight, atom in self.terms):
            return None
        return " ".join(atom.text for _, atom in self.terms if isinstance(atom, Text)).strip()

    @property
    def names(self) -> list[str]:
        """Names of the pictures that it calls for, each once."""
        return list(dict.fromkeys(atom.name for _, atom in self.terms if isinstance(atom, Named)))

    def called(self, words: Collection[str] = ()) -> list[str]:
        """Those of its names that aren't words of the text encoder, brackets and all, as of textual inversions."""
        return [name for name in self.names if f"<{name}>" not in words]

    def with_pictures(self, pictures: Mapping[str, Image | str | Path], words: Collection[str] = ()) -> Expression:
        """Puts pictures, or those at paths, in the place of their names.

        Args:
            words: that the text encoder knows, brackets and all, as of textual inversions: a name that no picture has is a text
                where it is one of them.

        Raises:
            UserError: for a name that is neither.
        """
        from deproj.clip.pictures import as_picture  # parsing alone does without

        if not isinstance(pictures, Mapping):
            raise UserError(f"pictures are handed over by their names, as {{'photo': picture}}; got {type(pictures).__name__}.")
        if missing := [name for name in self.called(words) if name not in pictures]:
            if hints := marks.found(f"<{missing[0]}>"):
                raise UserError(str(hints[0]))
            there = f"there are: {', '.join(f'<{name}>' for name in pictures)}" if pictures else "none was handed over"
            how = f"pictures={{{missing[0]!r}: PICTURE}} in Python, --image {missing[0]}.png in deproj.generate"
            raise UserError(f"no picture is named <{missing[0]}>; {there} ({how}).")
        named: dict[str, Atom] = {
            name: Picture(as_picture(pictures[name], f"<{name}>")) if name in pictures else Text(f"<{name}>")
            for name in self.names
        }
        return Expression(tuple((w, named[atom.name] if isinstance(atom, Named) else atom) for w, atom in self.terms))


def text(words: str) -> Expression:
    """A text, embedded whole, whatever signs it holds."""
    check_text(words)
    return Expression(((1.0, Text(words)),))


def picture(image: Image | str | Path) -> Expression:
    """A picture, or the one at a path."""
    from deproj.clip.pictures import as_picture  # parsing alone does without

    return Expression(((1.0, Picture(as_picture(image))),))


def vector(embedding: Tensor) -> Expression:
    """An embedding, (D,)."""
    shape = getattr(embedding, "shape", None)
    if not hasattr(embedding, "requires_grad") or shape is None or len(shape) != 1:  # a tensor, without importing torch
        got = type(embedding).__name__ if shape is None else f"{type(embedding).__name__} {tuple(shape)}"
        raise UserError(f"a vector is one embedding, a tensor (D,); got {got}.")
    return Expression(((1.0, Vector(embedding)),))


def mean(*expressions: Expression | str) -> Expression:
    """The mean of one or more."""
    if not expressions:
        raise UserError("a mean is of one expression or more; got none.")
    return sum(map(expression_of, expressions), Expression()) * (1 / len(expressions))


def between(a: Expression | str, b: Expression | str, t: float) -> Expression:
    """From a (t = 0) to b (t = 1), in a straight line, which goes on at both ends."""
    share = as_number(t)
    if share is None:
        swapped = " The number comes last." if any(as_number(one) is not None for one in (a, b)) else ""
        raise UserError(f"between takes two prompts and then the share of the second, a number; got {t!r}.{swapped}")
    return (1 - share) * expression_of(a) + share * expression_of(b)


def expression_of(anything: Any) -> Expression:
    """A text in the syntax, a picture or its path, an embedding (D,), or what is an expression already."""
    import torch  # parsing alone needs neither
    from PIL import Image

    if isinstance(anything, Expression):
        return anything
    if isinstance(anything, str):
        return parse(anything)
    if isinstance(anything, (Image.Image, Path)):
        return picture(anything)
    if isinstance(anything, torch.Tensor):
        return vector(anything)
    raise UserError(f"a prompt is a text, a picture, an embedding (D,) or an expression; got {type(anything).__name__}.")


def embed(expressions: Sequence[Expression], encoder: TextEncoder, pictures: PictureEmbedder | None = None) -> Tensor:
    """Embeddings of expressions, (B, D); each text and picture is encoded once.

    Args:
        pictures: embeds pictures; None where there is no image encoder.

    Raises:
        UserError: for a picture where there is no image encoder or that has no name, and for an embedding of another width.
    """
    import torch  # parsing alone does without

    empty = encoder.empty.embedding[0]
    atoms = list(dict.fromkeys(atom for expression in expressions for _, atom in expression.terms))
    found: dict[Atom, Tensor] = {}
    if texts := [atom for atom in atoms if isinstance(atom, Text)]:
        found |= dict(zip(texts, encoder.embed([atom.text for atom in texts]), strict=True))
    if images := [atom for atom in atoms if isinstance(atom, Picture)]:
        if pictures is None:
            raise UserError(
                "pictures can't be taken: name the CLIP that the text encoder comes from (clip=, --clip), and pictures of all "
                "kinds (pictures=, --reference)."
            )
        found |= dict(zip(images, pictures([atom.image for atom in images]).to(empty), strict=True))
    for atom in atoms:
        if isinstance(atom, Named):
            raise UserError(f"no picture is named <{atom.name}>; hand one over by that name.")
        if isinstance(atom, Vector):
            if atom.embedding.shape != empty.shape:
                raise UserError(f"an embedding is ({len(empty)},) here; got {tuple(atom.embedding.shape)}.")
            found[atom] = atom.embedding.to(empty)
    embedded = []
    for expression in expressions:
        # one term of weight 1 is the embedding itself, to the last bit
        if len(expression.terms) == 1 and expression.terms[0][0] == 1:
            embedded.append(found[expression.terms[0][1]])
        else:
            parts = [weight * (found[atom] - empty) for weight, atom in expression.terms]
            embedded.append(torch.stack(parts).sum(0) + empty if parts else empty)
    return torch.stack(embedded) if embedded else empty[None][:0]


# --- The text syntax -------------------------------------------------------------------------------

#: What ends a text that is not in quotes.
STOPS = f'{COMMAS}:|@()<>"'
SIGNS = STOPS + "\\"
#: What may follow a weight, and what may follow anything that is whole; each ends a term.
AFTER_NUMBER, AFTER_WHOLE = f"{COMMAS}|@)", f"{COMMAS}|@:)"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
DEEPEST = 50  # brackets in brackets


def parse(prompt: str) -> Expression:
    """Reads the text syntax (see the module's docstring).

    Raises:
        UserError: for what it cannot read, with the character where that is.
    """
    check_text(prompt)
    check_encodable(prompt, f"the prompt {prompt!a}")
    parser = Parser(prompt)
    expression = parser.blend(0)
    if (sign := parser.peek()) is not None:
        parser.fail("this closes nothing" if sign in ")>" else "this cannot stand here; put signs of a text in quotes")
    return expression


def check_text(given: object) -> None:
    """Refuses what is no text."""
    if not isinstance(given, str):
        raise UserError(f"a prompt is a text here; got {type(given).__name__}.")


def written(weight: float, atom: Atom) -> str:
    sign, size = ("-" if weight < 0 else ""), abs(weight)
    if isinstance(atom, Text):
        what = atom.text
        if not what or what != what.strip() or what.startswith("-") or any(s in SIGNS for s in what):
            what = '"' + re.sub(r'(["\\])', r"\\\1", what) + '"'
    elif isinstance(atom, Named):
        what = f"<{atom.name}>"
    else:
        what = "<picture>" if isinstance(atom, Picture) else "<embedding>"
    return f"{sign}{what}" + ("" if size == 1 else f":{size!r}")


class Parser:
    """Recursive descent over one prompt."""

    def __init__(self, prompt: str) -> None:
        self.prompt, self.at = prompt, 0

    def peek(self) -> str | None:
        """The next character that is no space, or None at the end."""
        while self.at < len(self.prompt) and self.prompt[self.at].isspace():
            self.at += 1
        return self.prompt[self.at] if self.at < len(self.prompt) else None

    def take(self, signs: str) -> bool:
        """Whether the next character is one of these, which is then passed."""
        sign = self.peek()
        found = sign is not None and sign in signs
        self.at += found
        return found

    def fail(self, what: str, at: int | None = None) -> None:
        """Raises a `UserError` that shows where."""
        at = self.at if at is None else at
        start = max(at - 40, 0)
        shown = "".join(" " if c.isspace() else c for c in self.prompt[start : at + 40])
        # the letters of some scripts are two columns wide
        before = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown[: at - start])
        raise UserError(f"{what}; character {at + 1} of the prompt:\n  {shown}\n  {' ' * before}^")

    def blend(self, depth: int) -> Expression:
        sides = [self.side(depth)]
        while (bar := self.at if self.peek() == "|" else None) is not None:
            self.at += 1
            if not sides[-1].terms:
                self.fail("there is nothing to the left of this", bar)
            sides.append(self.side(depth))
            if not sides[-1].terms:
                self.fail("there is nothing to the right of this", bar)
        if self.peek() != "@":
            return mean(*sides) if len(sides) > 1 else sides[0]
        if len(sides) != 2:
            self.fail(f"@ stands after two sides, as in a | b @ 0.3; here it is {len(sides)}")
        self.at += 1
        start, t = self.at, self.number("the share of the right side, 0 to 1")
        if not 0 <= t <= 1:
            self.fail(f"the share of the right side is 0 to 1, not {t:g}", start)
        return between(sides[0], sides[1], t)

    def side(self, depth: int) -> Expression:
        total = self.term(depth)
        while self.take(COMMAS):
            total += self.term(depth)
        return total

    def term(self, depth: int) -> Expression:
        start, minus = self.at, False
        if self.peek() == "-":
            start, minus = self.at, True
            self.at += 1
        found, there = self.atom(depth)
        if self.peek() == ":":
            if not there:
                self.fail("there is nothing to weigh here")
            self.at += 1
            found *= self.number("a weight")
        elif minus and not there:
            self.fail("there is nothing to subtract here", start)
        return -found if minus else found

    def atom(self, depth: int) -> tuple[Expression, bool]:
        """What a term is of, and whether there is anything."""
        start, sign = self.at, self.peek()
        if sign is None or sign in f"{COMMAS}|@:":
            return Expression(), False
        start = self.at
        if sign == "(":
            if depth == DEEPEST:
                self.fail(f"brackets are {DEEPEST} deep at most")
            self.at += 1
            found = self.blend(depth + 1)
            if not self.take(")"):
                self.fail("this bracket is not closed", start)
            if not found.terms:
                self.fail("there is nothing in these brackets", start)
        elif sign == '"':
            found = text(self.quoted())
        elif sign == "<":
            end = self.prompt.find(">", start)
            if end < 0:
                self.fail("this < is not closed; a picture is called <name>", start)
            if not (name := self.prompt[start + 1 : end].strip()):
                self.fail("a picture is called by a name, as in <name>", start)
            self.at = end + 1
            found = Expression(((1.0, Named(name)),))
        elif sign in ")>":
            return Expression(), False
        else:
            return text(self.bare()), True
        if (after := self.peek()) is not None and after not in AFTER_WHOLE:
            self.fail("a comma is missing before this")
        return found, True

    def bare(self) -> str:
        letters: list[str] = []
        kept = 0  # what is escaped is kept, spaces too
        while self.at < len(self.prompt) and (sign := self.prompt[self.at]) not in STOPS:
            if sign == "\\":
                self.escape()
                kept = len(letters) + 1
            letters.append(self.prompt[self.at])
            self.at += 1
        if self.at < len(self.prompt) and self.prompt[self.at] in '(<"':
            self.fail("a comma is missing before this, or quotes around the text that it is part of")
        words = "".join(letters)
        return words[:kept] + words[kept:].rstrip()

    def quoted(self) -> str:
        start, letters = self.at, list[str]()
        self.at += 1
        while self.at < len(self.prompt) and self.prompt[self.at] != '"':
            if self.prompt[self.at] == "\\":
                self.escape()
            letters.append(self.prompt[self.at])
            self.at += 1
        if self.at == len(self.prompt):
            self.fail("this quote is not closed", start)
        self.at += 1
        return "".join(letters)

    def escape(self) -> None:
        """Passes a backslash."""
        self.at += 1
        if self.at == len(self.prompt):
            self.fail("nothing follows this backslash", self.at - 1)

    def number(self, what: str) -> float:
        """A number and then the end of a term."""
        self.peek()
        start, match = self.at, NUMBER.match(self.prompt, self.at)
        if match is None:
            self.fail(f"{what} must be a number; put signs of a text in quotes")
            raise AssertionError
        self.at = match.end()
        value = float(match.group())
        if not math.isfinite(value):
            self.fail(f"{what} is too large", start)
        if (after := self.peek()) is not None and after not in AFTER_NUMBER:
            self.fail(f"{what} ends here, and then comes a comma; put signs of a text in quotes")
        return value


def hints_at(prompts: Sequence[object]) -> list[str]:
    """How the web's marks in those prompts that are texts are written here, each once."""
    hints = [str(hint) for prompt in prompts if isinstance(prompt, str) for hint in marks.found_in_prompt(prompt)]
    return list(dict.fromkeys(hints))
