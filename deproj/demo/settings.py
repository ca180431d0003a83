"""What the page is set to: as its inputs hold it, as a link, and as a downloaded picture says it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from deproj.draw.stamp import Stamp
from deproj.process.errors import UserError

__all__ = ["ROWS", "SEEDS", "Settings"]

#: Rows of prompt and weight.
ROWS = 4
#: Seeds are below this: a browser's numbers are exact up to here.
SEEDS = 2**53
#: Numbers of a link, with the least and the largest that the page takes.
RANGES = {"picture_weight": (-2.0, 2.0), "share": (0.0, 1.0), "strength": (0.0, 1.0), "guidance": (1.0, 15.0)}
#: Pictures of each model at most.
MOST = 4


@dataclass(frozen=True)
class Settings:
    """What the page is set to, but for the picture, which is no part of the link.

    Attributes:
        prompts: in the syntax of `deproj.expression`, one a row.
        weights: of the rows.
        picture_weight: of the picture.
        to, share: the prompt at the end of the way, or nothing, and the share of the way there.
        strip: whether the whole way there is drawn.
        negative: what is to be avoided.
        models: names of those that draw.
        seed, count: of the first picture, and how many pictures each model draws.
        strength: from the true states (0) to the deprojected ones (1).
        guidance: classifier-free guidance.
    """

    prompts: tuple[str, ...]
    weights: tuple[float, ...]
    picture_weight: float
    to: str
    share: float
    strip: bool
    negative: str
    models: tuple[str, ...]
    seed: int
    count: int
    strength: float
    guidance: float

    @classmethod
    def start(cls, prompt: str, model: str, guidance: float) -> Settings:
        """What the page opens with."""
        return cls((prompt, *[""] * (ROWS - 1)), (1.0,) * ROWS, 1.0, "", 0.5, False, "", (model,), 0, 1, 1.0, guidance)

    @property
    def values(self) -> list[Any]:
        """For the page's inputs, in the order of `of_values`."""
        return [*self.prompts, *self.weights, *(list(v) if isinstance(v, tuple) else v for v in self.rest.values())]

    @property
    def rest(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)[2:]}

    @classmethod
    def of_values(cls, values: Sequence[Any], models: Sequence[str]) -> Settings:
        """What the page's inputs hold; models in the order of `models`.

        Raises:
            UserError: for a seed that is none.
        """
        prompts, weights, rest = values[:ROWS], values[ROWS : 2 * ROWS], values[2 * ROWS :]
        picture_weight, to, share, strip, negative, chosen, seed, count, strength, guidance = rest
        if not 0 <= (seed or 0) < SEEDS or (seed or 0) != int(seed or 0):
            raise UserError(f"seed is a whole number from 0 to {SEEDS - 1}; got {seed}.")
        return cls(
            tuple(prompt or "" for prompt in prompts), tuple(map(float, weights)), float(picture_weight), to or "", float(share),
            bool(strip), negative or "", tuple(name for name in models if name in chosen), int(seed or 0), int(count),
            float(strength), float(guidance),
        )  # fmt: skip

    def query(self, start: Settings) -> str:
        """As the query of a link: only what differs from `start`, and no empty rows."""
        rows = [(prompt, weight) for prompt, weight in zip(self.prompts, self.weights, strict=True) if prompt.strip()]
        pairs: list[tuple[str, Any]] = [("prompt", prompt) for prompt, _ in rows] or [("prompt", "")]
        if any(weight != 1 for _, weight in rows):
            pairs += [("weight", f"{weight:g}") for _, weight in rows]
        for name, value in self.rest.items():
            if value != start.rest[name]:
                pairs += [("model", one) for one in value] if name == "models" else [(name, told(value))]
        return urlencode(pairs)

    @classmethod
    def of_query(cls, query: str, start: Settings, models: Sequence[str]) -> Settings:
        """Reads a link's query; what it lacks, or what is no such thing, is as in `start`."""
        given, changed = parse_qs(query, keep_blank_values=True), dict[str, Any]()
        if "prompt" in given:
            changed["prompts"] = tuple((given["prompt"] + [""] * ROWS)[:ROWS])
            with suppress(ValueError):
                weights = [within(weight, -2, 2) for weight in given.get("weight", [])]
                changed["weights"] = tuple((weights + [1.0] * ROWS)[:ROWS])
        if chosen := tuple(name for name in models if name in given.get("model", [])):
            changed["models"] = chosen
        for name in ("to", "negative"):
            if name in given:
                changed[name] = given[name][0]
        if given.get("strip") == ["1"]:
            changed["strip"] = True
        for name, (low, high) in RANGES.items():
            with suppress(KeyError, ValueError):
                changed[name] = within(given[name][0], low, high)
        for name, least, below in (("seed", 0, SEEDS), ("count", 1, MOST + 1)):
            with suppress(KeyError, ValueError):
                if least <= (number := int(given[name][0])) < below:
                    changed[name] = number
        return replace(start, **changed)

    def brief(self, start: Settings) -> str:
        """In a line: the prompts, and what else is not as at the start."""
        rows = [(prompt, weight) for prompt, weight in zip(self.prompts, self.weights, strict=True) if prompt.strip() and weight]
        prompts = " + ".join(prompt if weight == 1 else f"{prompt} × {told(weight)}" for prompt, weight in rows)
        words = {
            "strip": "the whole way",
            "models": ", ".join(self.models),
            "picture_weight": f"picture × {told(self.picture_weight)}",
        }
        others = [
            words.get(name, f"{name} {told(value)}" if value != "" else f"no {name}")
            for name, value in self.rest.items()
            if value != start.rest[name]
        ]
        return ", ".join([prompts or "the picture", *others])

    @classmethod
    def of_stamp(cls, stamp: Stamp, start: Settings) -> Settings:
        """What a picture of `deproj.generate` says."""
        changed: dict[str, Any] = {"negative": stamp.negative, "strength": stamp.strength, "seed": stamp.seed % SEEDS}
        changed |= {} if stamp.to is None else {"to": stamp.to, "share": stamp.share}
        guidance = min(max(stamp.guidance, 1.0), 15.0)
        return replace(start, prompts=(stamp.prompt, *start.prompts[1:]), guidance=guidance, **changed)


def told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (float, bool)) else str(value)


def within(text: str, low: float, high: float) -> float:
    """A number, the nearest from `low` to `high`; a ValueError for what is none."""
    number = float(text)
    if number != number:
        raise ValueError(text)
    return min(max(number, low), high)
