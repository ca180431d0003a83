"""What is said about a scene: captions of it, and what a text asks for.

A caption is a few tags in any order, parted by spaces or by commas: ``1girl red hair blue eye black skirt``,
``maid, in forest``. It leaves things out; what it doesn't say can be anything. Reading goes the other
way: `asked` finds in any text the attributes it asks for, as a set of (attribute, value) pairs, the
text's *key*. Keys of three attributes or more whose hash falls in a fixed tenth are held out.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from deproj.pixel.scenes import (
    APRON,
    ATTRIBUTES,
    CAT,
    COUPLE,
    EARS,
    EYE,
    GIRL,
    HAIR,
    NAMES,
    PLACE,
    SHIRT,
    SKIRT,
    TROUSERS,
    WHO,
    Scenes,
    sample,
)  # fmt: skip
from deproj.texts.benchmark import words_of

__all__ = [
    "VOCABULARY",
    "asked",
    "caption",
    "captions",
    "held_out",
    "held_out_prompts",
    "never_said",
    "phrases",
    "sayable",
    "training_texts",
]

Key = frozenset[tuple[str, str]]

_COLOURED = {HAIR: "hair", EYE: "eye", SHIRT: "shirt", SKIRT: "skirt", TROUSERS: "trousers"}
_NOUNS = {noun: NAMES[column] for column, noun in _COLOURED.items()} | {"eyes": "eye"}
_PREPOSITION = {"beach": "on", "night": "at"}
#: What can be said, by what it is about; a colour stands before its noun.
VOCABULARY: dict[str, tuple[str, ...]] = {
    "who": ("1girl", "1boy", "cat", "maid", "cat ears"),
    **{noun: ATTRIBUTES[NAMES[column]] for column, noun in _COLOURED.items()},
    "where": tuple(f"{_PREPOSITION.get(place, 'in')} {place}" for place in ATTRIBUTES["place"]),
}
_SAID = " ".join(" ".join((name, *said)) for name, said in VOCABULARY.items() if name not in ("who", "where"))
_WORDS = frozenset(f"{_SAID} {' '.join((*VOCABULARY['who'], *VOCABULARY['where']))} girl boy eyes".split())
_PEOPLE = {"1girl": "girl", "girl": "girl", "maid": "girl", "1boy": "boy", "boy": "boy"}


@lru_cache(maxsize=200_000)
def asked(text: str) -> Key:
    """The attributes that a text asks for; words it doesn't know are passed over.

    ``cat`` beside a person means cat ears, and ``cat, maid`` asks for what ``cat maid`` asks.
    """
    words = text.lower().replace(",", " ").split()
    found: set[tuple[str, str]] = set()
    people: set[str] = set()
    cat = False
    for k, word in enumerate(words):
        before, after = words[k - 1] if k else "", words[k + 1] if k + 1 < len(words) else ""
        if word in _NOUNS and before in ATTRIBUTES[_NOUNS[word]]:
            found.add((_NOUNS[word], before))
        elif word in _PEOPLE:
            people.add(_PEOPLE[word])
            if word == "maid":
                found.add(("apron", "maid"))
        elif word == "cat" and after == "ears":
            found.add(("ears", "cat"))
        elif word == "cat":
            cat = True
        elif word == "class" and after == "room":
            found.add(("place", "class room"))
        elif word in ATTRIBUTES["place"] and (word != "room" or before != "class"):
            found.add(("place", word))
    if people:
        found.add(("who", "girl and boy" if len(people) == 2 else people.pop()))
        if cat:
            found.add(("ears", "cat"))
    elif cat:
        found.add(("who", "cat"))
    return frozenset(found)


def sayable() -> str:
    """What can be said in the pixel world, in a line."""
    return "; ".join(f"{', '.join(said)}{'' if name in ('who', 'where') else f' {name}'}" for name, said in VOCABULARY.items())


def phrases() -> dict[str, list[str]]:
    """All that can be said, word for word, by what it is about."""
    alone = ("who", "where")
    return {about: [one if about in alone else f"{one} {about}" for one in said] for about, said in VOCABULARY.items()}


def never_said(text: str) -> list[str]:
    """The words of a text that no caption of this world has, each once."""
    return [word for word in dict.fromkeys(words_of(text).split()) if word not in _WORDS]


@lru_cache(maxsize=200_000)
def _key_held_out(key: Key) -> bool:
    canonical = ";".join(f"{name}={value}" for name, value in sorted(key))
    return len(key) >= 3 and hashlib.blake2s(canonical.encode()).digest()[0] * 10 < 256


def held_out(text: str) -> bool:
    """Whether a text's key is held out: it must not be trained on."""
    return _key_held_out(asked(text))


def caption(values: np.ndarray, rng: random.Random, separator: str | None = None) -> str:
    """One caption of one scene, by its attributes (9,); a random choice of its tags, at least one.

    Args:
        separator: of the tags; by default a space or a comma by chance.
    """
    who = values[WHO]
    tags: list[list[str]] = []  # the tags that say one thing
    maid, ears = values[APRON] > 0, values[EARS] > 0
    if who == CAT:
        tags.append(["cat"])
    elif who == COUPLE:
        tags.append(rng.choice((["1boy", "1girl"], ["1girl", "1boy"])))
    else:
        person = "girl" if who == GIRL else "boy"
        if maid and rng.random() < 0.8:
            tags.append(["cat", "maid"] if ears and rng.random() < 0.7 else ["maid"])
            if rng.random() < 0.2:
                tags[0].insert(rng.randrange(2), "1girl")
        elif ears and rng.random() < 0.3:
            tags.append(["cat", person])
        else:
            tags.append(["1" + person if rng.random() < 0.8 else person])
        if ears and "cat" not in tags[0]:
            tags.append(["cat ears"])
    for column, noun in _COLOURED.items():
        if values[column] > 0:
            colour = ATTRIBUTES[NAMES[column]][values[column] - 1]
            noun = "eyes" if noun == "eye" and rng.random() < 0.3 else noun
            tags.append([f"{colour} {noun}"])
    place = ATTRIBUTES["place"][values[PLACE] - 1]
    said = rng.random() < 0.7
    tags.append([f"{_PREPOSITION.get(place, 'in')} {place}" if said else place])
    # The number of tags is uniform, so that short and long captions are equally frequent; who it is
    # is said in most.
    count = rng.randint(1, len(tags))
    first = [tags[0]] if rng.random() < 0.6 else []
    rest = tags[len(first) :]
    chosen = first + rng.sample(rest, min(count - len(first), len(rest)))
    if rng.random() < 0.5:
        chosen.sort(key=tags.index)
    else:
        rng.shuffle(chosen)
    by_chance = rng.choice((" ", ", "))
    words = [word for group in chosen for word in ([" ".join(group)] if rng.random() < 0.6 else group)]
    return (by_chance if separator is None else separator).join(words)


def captions(scenes: Scenes, rng: random.Random) -> list[str]:
    """A caption for each scene whose key is not held out."""
    texts = []
    for values in scenes.values:
        text = caption(values, rng)
        while held_out(text):
            text = caption(values, rng)
        texts.append(text)
    return texts


def training_texts(seed: int) -> Iterator[str]:
    """Endless captions of random scenes, none of them held out."""
    rng, scene_rng = random.Random(seed), np.random.default_rng(seed)
    while True:
        yield from captions(sample(1000, scene_rng), rng)


def held_out_prompts(n: int, seed: int = 0, separator: str = " ") -> list[str]:
    """n different captions of held-out keys, all keys different.

    Args:
        separator: between the tags, a space or a comma; with a comma every caption has two tags or more.
    """
    rng, scene_rng = random.Random(seed), np.random.default_rng(seed)
    seen: set[Key] = set()
    texts: list[str] = []
    while len(texts) < n:
        for values in sample(1000, scene_rng).values:
            text = caption(values, rng, separator)
            if held_out(text) and asked(text) not in seen and (separator == " " or separator in text):
                seen.add(asked(text))
                texts.append(text)
    return texts[:n]
