"""Scenes of the pixel world: what can be in a picture, and how it is drawn.

A scene is a row of whole numbers, one an attribute (who, colours, ears, apron, place), and a few that
no caption tells of (hair style, position, variant of the background, tints). It is drawn as 32 x 32
pixel art from sprites: grids of letters, a letter a *role* ("h": hair), a role a colour of the scene.
All of it works on many scenes at once: N scenes are an (N, attributes) array, their pictures an
(N, 32, 32, 3) array of bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

import numpy as np

from deproj.pixel import sprites
from deproj.pixel.backgrounds import SIZE, VARIANTS, backgrounds
from deproj.pixel.sprites import LETTERS

__all__ = ["ATTRIBUTES", "SIZE", "VARIANTS", "Scenes", "draw", "fingerprint", "sample"]


CLOTHES = ("black", "white", "red", "blue", "green", "yellow")
#: Every attribute with its values. In arrays, 0 stands for "not there" and k for the k-th value.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "who": ("girl", "boy", "girl and boy", "cat"),
    "hair": ("black", "blonde", "red", "blue", "green", "pink"),
    "eye": ("blue", "red", "green", "yellow", "purple"),
    "shirt": CLOTHES,
    "skirt": CLOTHES,
    "trousers": CLOTHES,
    "ears": ("cat",),
    "apron": ("maid",),
    "place": ("class room", "forest", "beach", "night", "city", "room"),
}
NAMES = tuple(ATTRIBUTES)
WHO, HAIR, EYE, SHIRT, SKIRT, TROUSERS, EARS, APRON, PLACE = range(len(NAMES))
GIRL, BOY, COUPLE, CAT = 1, 2, 3, 4


@dataclass(frozen=True)
class Scenes:
    """N scenes.

    Attributes:
        values: attributes in the order of `ATTRIBUTES`, 0 for "not there", (N, 9) int8.
        style: hair styles, sprites' mirror images, position, background variant, (N, 7) int8.
        tint: random numbers in [0, 1) that shade the colours, (N, 8) float32.
    """

    values: np.ndarray
    style: np.ndarray
    tint: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: np.ndarray | slice) -> Scenes:
        return Scenes(self.values[rows], self.style[rows], self.tint[rows])


def consistent(values: np.ndarray) -> np.ndarray:
    """Clears the attributes that a scene cannot show, (N, 9): a boy wears no skirt, a cat no shirt."""
    values = values.copy()
    who = values[:, WHO]
    person = (who == GIRL) | (who == BOY)
    values[~person, HAIR] = 0
    values[~person, EYE] = 0
    values[~person, EARS] = 0
    values[who != GIRL, APRON] = 0
    values[~person | (values[:, APRON] > 0), SHIRT] = 0  # a maid's dress is one with its skirt
    values[(who != GIRL) & (who != COUPLE), SKIRT] = 0
    values[(who != BOY) & (who != COUPLE), TROUSERS] = 0
    return values


def sample(n: int, rng: np.random.Generator) -> Scenes:
    """Draws n scenes at random."""
    values = np.empty((n, len(NAMES)), np.int8)
    values[:, WHO] = rng.choice([GIRL, BOY, COUPLE, CAT], n, p=[0.5, 0.25, 0.15, 0.1])
    for column in (HAIR, EYE, SHIRT, SKIRT, TROUSERS, PLACE):
        values[:, column] = rng.integers(1, 1 + len(ATTRIBUTES[NAMES[column]]), n)
    values[:, EARS] = rng.random(n) < 0.35
    values[:, APRON] = rng.random(n) < 0.35
    return Scenes(consistent(values), *sample_style(n, rng))


def sample_style(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws what no caption tells of: `Scenes.style` and `Scenes.tint`."""
    style = np.stack(
        [
            rng.integers(0, 3, n),  # girl's hair
            rng.integers(0, 2, n),  # boy's hair
            rng.integers(0, 2, n),  # mirrored
            rng.integers(-4, 5, n),  # to the right
            rng.integers(-1, 2, n),  # down
            rng.integers(0, VARIANTS, n),  # background
            rng.integers(0, 2, n),  # background mirrored
        ],
        axis=1,
    ).astype(np.int8)
    return style, rng.random((n, 8), dtype=np.float32)


CHARACTER_ROLES = len(LETTERS)
BACKGROUND_ROLES = 8


def _grid(text: str) -> np.ndarray:
    rows = text.split()
    width = max(map(len, rows))
    return np.array([[LETTERS.index(letter) for letter in row.ljust(width, ".")] for row in rows])


def _over(canvas: np.ndarray, sprite: np.ndarray, top: int, left: int) -> None:
    """Lays a sprite over a canvas; empty places leave it as it is, what falls outside is cut off."""
    rows = slice(max(top, 0), min(top + sprite.shape[0], canvas.shape[0]))
    columns = slice(max(left, 0), min(left + sprite.shape[1], canvas.shape[1]))
    part = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    canvas[rows, columns] = np.where(part > 0, part, canvas[rows, columns])


PAD = 6  # room around the canvas, so that a shifted character is a cut-out of it


@cache
def _characters() -> np.ndarray:
    """Roles of every character, (24, 44, 44), indexed by `_character_index`."""
    bank = []
    top, left = PAD + 4, PAD + 7
    hair = [_grid(sprites.LONG_HAIR), _grid(sprites.TWIN_TAILS), _grid(sprites.BOB)]
    head, ears, band = _grid(sprites.HEAD), _grid(sprites.EARS_SPRITE), _grid(sprites.BAND)
    blank = np.zeros((SIZE + 2 * PAD, SIZE + 2 * PAD), np.int64)
    for body in (_grid(sprites.GIRL_BODY), _grid(sprites.MAID_BODY)):
        for with_ears in (False, True):
            for style in hair:
                canvas = blank.copy()
                _over(canvas, body, top + 13, left)
                _over(canvas, head, top, left)
                _over(canvas, style, top, left)
                if body[3, 3] == LETTERS.index("k"):
                    _over(canvas, band, top - 2, left)
                if with_ears:
                    _over(canvas, ears, top - 3, left)
                bank.append(canvas)
    for with_ears in (False, True):
        for spikes in (False, True):
            canvas = blank.copy()
            _over(canvas, _grid(sprites.BOY_BODY), top + 13, left)
            _over(canvas, head, top, left)
            if spikes:
                _over(canvas, _grid(sprites.SPIKES), top - 1, left)
            if with_ears:
                _over(canvas, ears, top - 3, left)
            bank.append(canvas)
    for gap in (0, 1, 2):
        canvas = blank.copy()
        _over(canvas, _grid(sprites.SMALL_GIRL), PAD + 11, PAD + 3 - gap // 2)
        _over(canvas, _grid(sprites.SMALL_BOY), PAD + 11, PAD + 16 + gap)
        bank.append(canvas)
    canvas = blank.copy()
    _over(canvas, _grid(sprites.CAT_SPRITE), PAD + 12, PAD + 7)
    bank.append(canvas)
    return np.stack(bank)


def _character_index(scenes: Scenes) -> np.ndarray:
    """Row of `_characters` for each scene, (N,)."""
    who, style = scenes.values[:, WHO], scenes.style
    ears, apron = scenes.values[:, EARS] > 0, scenes.values[:, APRON] > 0
    girl = 6 * apron + 3 * ears + style[:, 0]
    boy = 12 + 2 * ears + style[:, 1]
    couple = 16 + style[:, 0]
    return np.select([who == GIRL, who == BOY, who == COUPLE], [girl, boy, couple], 19)


def _rgb(code: str) -> list[float]:
    return [int(code[k : k + 2], 16) for k in (0, 2, 4)]


HAIR_COLOURS = np.array([_rgb(c) for c in ["2b2833", "f5d565", "d92b2b", "3b6fe0", "3fae4c", "f77fb6"]])
EYE_COLOURS = np.array([_rgb(c) for c in ["2f6bff", "e02020", "1fa83c", "f2c200", "8f2fd0"]])
CLOTHES_COLOURS = np.array([_rgb(c) for c in ["26262c", "f6f6f6", "d32626", "2b56d8", "2f9a44", "f3cf2e"]])
FUR_COLOURS = np.array([_rgb(c) for c in ["e8963a", "4a4a52", "b9b9c0", "a8744a"]])
SKIN_COLOURS = np.array([_rgb(c) for c in ["ffdfc4", "f3c79f", "d9a377"]])
PLACE_COLOURS = np.array(
    [
        [_rgb(c) for c in line.split()]
        for line in (
            "efe3c2 c99b62 8a5a2b 1f6b4a dff0e4 b9793a 6d4522 9a7142",
            "9fd8ef 6cb04a 2a7d38 4f9f45 6e4424 000000 000000 000000",
            "8fd3ff 2f86d8 ffffff f0d694 ffd83a 000000 000000 000000",
            "151a45 0b2a24 e8e8ff ffeFa0 151a45 000000 000000 000000",
            "c7d3de 7d8794 5d6673 ffe58a 3f4752 4a4a50 e9e9e9 000000",
            "f2c9b4 e8b9a2 a9703f 7a4a2a a8dcf7 d45a5a 8a5a2b 5a7fc0",
        )
    ]
)


def _palette(scenes: Scenes) -> np.ndarray:
    """Colour of every role in every scene, (N, CHARACTER_ROLES + BACKGROUND_ROLES, 3), 0 to 255."""
    n, values, tint = len(scenes), scenes.values, scenes.tint
    palette = np.zeros((n, CHARACTER_ROLES + BACKGROUND_ROLES, 3), np.float32)

    def put(letter: str, colour: np.ndarray | str) -> None:
        palette[:, LETTERS.index(letter)] = _rgb(colour) if isinstance(colour, str) else colour

    def chosen(column: int, colours: np.ndarray, free: int) -> np.ndarray:
        """The named colour, or, where a scene leaves it open, one at random."""
        at_random = 1 + (tint[:, free] * len(colours)).astype(int)
        named = values[:, column].astype(int)
        return colours[np.where(named > 0, named, at_random) - 1] * (0.94 + 0.12 * tint[:, column % 8, None])

    hair = chosen(HAIR, HAIR_COLOURS, 0)
    couple = values[:, WHO] == COUPLE
    skin = SKIN_COLOURS[(tint[:, 1] * 3).astype(int)]
    shirt, skirt = chosen(SHIRT, CLOTHES_COLOURS, 2), chosen(SKIRT, CLOTHES_COLOURS, 3)
    trousers = chosen(TROUSERS, CLOTHES_COLOURS, 4)
    fur = FUR_COLOURS[(tint[:, 5] * len(FUR_COLOURS)).astype(int)]
    put("h", hair)
    put("H", hair * 0.72 + 28)
    other = HAIR_COLOURS[(tint[:, 1] * 7919 % 1 * len(HAIR_COLOURS)).astype(int)]
    put("b", other)
    put("B", other * 0.72 + 28)
    put("s", skin)
    put("S", skin * 0.8 + np.array([51.0, 20, 20]))
    put("e", chosen(EYE, EYE_COLOURS, 6))
    put("w", "ffffff")
    put("l", "241a20")
    palette[couple, LETTERS.index("l")] = skin[couple]
    put("m", "b5424a")
    put("t", shirt)
    put("T", shirt * 0.78 + 8)
    put("k", skirt)
    put("K", skirt * 0.75 + 8)
    put("p", trousers)
    put("P", trousers * 0.7 + 8)
    put("f", "5a3524")
    put("a", "fbfbff")
    put("A", "c9cfe0")
    put("n", "f7a0b4")
    put("c", fur)
    put("C", fur * 0.7)
    put("g", "c8e040")
    put("o", "241a20")
    place = PLACE_COLOURS[values[:, PLACE].astype(int) - 1]
    shade = 0.9 + 0.2 * tint[:, 7, None, None]
    palette[:, CHARACTER_ROLES:] = place * shade
    return palette.clip(0, 255)


def draw(scenes: Scenes) -> np.ndarray:
    """Draws scenes.

    Returns:
        Pictures, (N, 32, 32, 3) uint8.
    """
    n, style = len(scenes), scenes.style.astype(int)
    step = np.arange(SIZE)
    place = scenes.values[:, PLACE].astype(int) - 1
    mirrored = np.where(style[:, 6, None] > 0, SIZE - 1 - step, step)
    background = backgrounds()[place[:, None, None], style[:, 5, None, None], step[None, :, None], mirrored[:, None, :]]
    shift = np.where(scenes.values[:, WHO] == COUPLE, 0, style[:, 3])
    columns = np.where(style[:, 2, None] > 0, SIZE - 1 - step, step) - shift[:, None] + PAD
    rows = step[None, :] - style[:, 4, None] + PAD
    character = _characters()[_character_index(scenes)[:, None, None], rows[:, :, None], columns[:, None, :]]
    roles = np.where(character > 0, character, background + CHARACTER_ROLES)
    return np.rint(_palette(scenes)[np.arange(n)[:, None, None], roles]).astype(np.uint8)


@cache
def fingerprint() -> str:
    """A hash of what is drawn: of a thousand scenes."""
    pictures = draw(sample(1000, np.random.default_rng(0)))
    return hashlib.blake2b(pictures.tobytes(), digest_size=16).hexdigest()
