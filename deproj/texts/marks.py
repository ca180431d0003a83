"""The web's marks in prompts and captions, which mean nothing here: found, written in this project's way, taken out.

found("((cat)), <lora:x:0.8>")        hints: ``((cat))`` is written ``cat:1.21`` here, …
stripped("masterpiece, (cat:1.2)")    "masterpiece, cat"
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Hint", "found", "found_in_prompt", "stripped"]

#: What a bracket multiplies a weight by in A1111's syntax.
BRACKET = 1.1
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
#: Nothing that a bracket, a weight or a backslash would end.
WORDS = r"[^()\[\]{}<>|:\\]"  # one letter of them


@dataclass(frozen=True)
class Hint:
    """A mark, and how the same is written here.

    Attributes:
        mark: as it stands in the text.
        here: the same in this project's syntax, or what to do instead.
    """

    mark: str
    here: str

    def __str__(self) -> str:
        return f"{self.mark} is a mark of other programs; here, {self.here}."


def weighed(words: str, weight: float) -> str:
    words = words.strip()
    return f"write {words if ',' not in words else f'({words})'}:{weight:.4g}"


def nested(match: re.Match[str]) -> str:
    depth = min(len(match[1]), len(match[3]))
    return weighed(match[2], BRACKET**depth)


def less(match: re.Match[str]) -> str:
    depth = min(len(match[1]), len(match[3]))
    return weighed(match[2], BRACKET**-depth)


def sides(match: re.Match[str]) -> str:
    return "write ({})".format(" | ".join(side.strip() for side in match[1].split("|")))


def signs(match: re.Match[str]) -> str:
    words, run = (match[1] or match[2]), match[3]
    return weighed(words, BRACKET ** len(run) if run[0] == "+" else 0.9 ** len(run))


def schedule(match: re.Match[str]) -> str:
    sides = [side for part in match.groups()[:2] if (side := (part or "").strip())]
    return f"no word comes in later; write {f'({sides[0]} | {sides[1]} @ 0.5)' if len(sides) == 2 else ''.join(sides)}"


#: Each mark: what it looks like, and how the same is written here. Repeats are bounded, so that no text takes long.
MARKS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"<(?:lora|lyco|hypernet):[^<>]{0,500}>"), lambda m: "load a LoRA with DeprojectorPipeline.load_lora_weights"),
    (re.compile(rf"(?<!\\)\({{1,20}}({WORDS}{{1,500}}):\s*({NUMBER})\s*\){{1,20}}"), lambda m: weighed(m[1], float(m[2]))),
    (re.compile(rf"(?<!\\)(\({{2,20}})({WORDS}{{1,500}})(\){{2,20}})"), nested),
    (re.compile(rf"(?<!\\)(\{{{{2,20}})({WORDS}{{1,500}})(\}}{{2,20}})"), nested),
    (re.compile(rf"(?<!\\)\[({WORDS}{{1,500}}(?:\|{WORDS}{{0,500}}){{1,20}})\]"), sides),
    (re.compile(rf"(?<!\\)\[({WORDS}{{0,500}}):(?:({WORDS}{{0,500}}):)?\s*({NUMBER})\s*\]"), schedule),
    (re.compile(rf"(?<!\\)(\[{{1,20}})({WORDS}{{1,500}})(\]{{1,20}})"), less),
    (re.compile(r"(?:\(([^()]{1,500})\)|\b([^\W_][\w-]{0,60}?))(\+{2,20}|(?<!-)-{2,20})(?=[\s,.)|、，]|$)"), signs),
    (re.compile(r"\bBREAK\b"), lambda m: "leave it out, or write a comma"),
)
#: Signs of our syntax in full width; its commas may be so.
WIDE = re.compile("[（）：｜＠＜＞]")
#: Texts that a prompt takes as they stand.
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
#: A text without any of these has no mark: asked of every caption, so it must be quick.
SIGNS = re.compile(r"[(\[{<]|\+\+|--|BREAK")


def found(text: str) -> list[Hint]:
    """Hints at the marks in a text, in the order of `MARKS`, each mark once.

    A weight in brackets, ``(a:1.2)``, is among them: a prompt may hold it, but in a caption it is letters.
    """
    if not SIGNS.search(text):
        return []
    hints: dict[str, Hint] = {}
    for pattern, here in MARKS:
        for match in pattern.finditer(text):
            hints.setdefault(match[0], Hint(match[0].strip(), here(match)))
        text = pattern.sub(" ", text)  # a mark is not found a second time, as another one
    return list(hints.values())


def found_in_prompt(prompt: str) -> list[Hint]:
    """Hints at the marks in a prompt of `deproj.expression`, but for what stands in quotes.

    Its signs in full width, as Japanese keyboards type them, are among them: a prompt takes them for letters.
    """
    bare = QUOTED.sub(" ", prompt)
    wide = "".join(dict.fromkeys(WIDE.findall(bare)))
    return found(bare) + ([Hint(wide, f"write {unicodedata.normalize('NFKC', wide)} in half width")] if wide else [])


def stripped(text: str) -> str:
    """A text without the web's marks: weights, brackets and signs go, words stay; ``\\(`` is a bracket that stays."""
    text = re.sub(r"<(?:lora|lyco|hypernet):[^<>]*>", " ", text)
    text = re.sub(r"\bBREAK\b", ",", text)
    text = re.sub(rf":\s*{NUMBER}\s*(?=[)\]])", "", text)  # a weight, or when a schedule changes
    text = re.sub(r"(?<=[\w)])(?:\+{2,}|--+)(?=[\s,.)|]|$)|(?<=\))[+-]+", "", text)
    text = re.sub(r"\[([^\[\]]*)\]", lambda match: re.sub(r"[|:]", " ", match[1]), text)
    text = re.sub(r"(?<!\\)[()\[\]{}]", "", text)
    text = re.sub(r"\\([()\[\]{}])", r"\1", text)
    chunks = [" ".join(chunk.split()) for chunk in text.split(",")]
    return ", ".join(chunk for chunk in chunks if chunk)
