"""What is behind the characters of the pixel world: six places, each in several variants.

Every place is painted in roles 0 to 7, which a scene colours.
"""

from __future__ import annotations

from functools import cache

import numpy as np

__all__ = ["SIZE", "VARIANTS", "backgrounds"]

SIZE = 32
#: Variants of each place.
VARIANTS = 24
Y, X = np.mgrid[0:SIZE, 0:SIZE]


def class_room(b: np.ndarray, variant: int, rng: np.random.Generator) -> None:
    """Wall, blackboard with chalk in a wooden frame, floor, desks."""
    floor = 23 + variant % 3
    board = 13 + variant % 3
    b[floor:] = 1
    b[floor, :] = 7
    b[2:board, 2:30] = 2
    b[3 : board - 1, 3:29] = 3
    for row in range(5, board - 2, 3):
        for chalk in (4, 20):
            b[row, chalk : chalk + rng.integers(3, 8)] = 4
    for desk in (0, 25):
        b[26:28, desk : desk + 7] = 5
        b[28:32, desk + 1] = 6
        b[28:32, desk + 5] = 6


def forest(b: np.ndarray, variant: int, rng: np.random.Generator) -> None:
    """Sky, grass, trees with trunks."""
    b[25 + variant % 3 :] = 1
    for tree in rng.permutation([1, 6, 12, 20, 26, 30])[:5] + rng.integers(-1, 2, 5):
        crown = rng.integers(8, 13)
        b[crown : 27 + variant % 3, tree - 1 : tree + 1] = 4
        ball = (X - tree) ** 2 + (Y - crown + 2) ** 2
        b[ball < rng.integers(22, 34)] = 2
        b[(X - tree + 1) ** 2 + (Y - crown + 3) ** 2 < 6] = 3


def beach(b: np.ndarray, variant: int, rng: np.random.Generator) -> None:
    """Sky with a sun, sea with foam, sand, a palm."""
    sea, sand = 13 + variant % 3, 22 + variant % 4
    b[sea:sand] = 1
    for _ in range(6):
        wave, foam = rng.integers(sea + 1, sand), rng.integers(0, 28)
        b[wave, foam : foam + 4] = 2
    b[sand:] = 3
    b[sand] = 2
    side = 4 if variant % 2 else 27
    b[(X - side) ** 2 + (Y - 5) ** 2 < 12] = 4
    cloud = rng.integers(8, 24)
    b[4 + variant % 4, cloud : cloud + 6] = 2
    b[5 + variant % 4, cloud - 1 : cloud + 7] = 2


def night(b: np.ndarray, variant: int, rng: np.random.Generator) -> None:
    """Dark sky, moon, stars, dark hills."""
    hill = 25 + 2.5 * np.sin(X / (4 + variant % 4) + variant)
    b[hill < Y] = 1
    stars = (rng.random((SIZE, SIZE)) < 0.045) & (Y < 23)
    b[stars] = 2
    moon = (4, 6) if variant % 2 else (27, 6)
    disc = (X - moon[0]) ** 2 + (Y - moon[1]) ** 2
    b[disc < 14] = 3
    b[(X - moon[0] - 2) ** 2 + (Y - moon[1] + 1) ** 2 < 7] = 4


def city(b: np.ndarray, variant: int, rng: np.random.Generator) -> None:
    """Sky, towers with windows, street."""
    left = 0
    while left < SIZE:
        width, height = int(rng.integers(6, 10)), int(rng.integers(3, 13))
        shade = 1 if (left // 7) % 2 else 2
        b[height:27, left : left + width - 1] = shade
        for row in range(height + 2, 26, 3):
            for column in range(left + 1, min(left + width - 2, SIZE), 2):
                b[row, column] = 3 if rng.random() < 0.8 else 4
        left += int(width)
    b[27:] = 5
    b[29, ::6] = 6
    b[29, 1::6] = 6
    b[29, 2::6] = 6


def room(b: np.ndarray, variant: int, rng: np.random.Generator) -> None:
    """Papered wall, window with curtains, shelf, wooden floor."""
    b[:, ::4] = 1
    b[25 + variant % 2 :] = 2
    b[25 + variant % 2] = 3
    window = 2 if variant % 2 else 19
    b[3:14, window : window + 11] = 3
    b[4:13, window + 1 : window + 10] = 4
    b[4:13, window + 5] = 3
    b[8, window + 1 : window + 10] = 3
    b[3:14, window : window + 2] = 5
    b[3:14, window + 9 : window + 11] = 5
    shelf = 20 if variant % 2 else 2
    b[9, shelf : shelf + 10] = 6
    for book in range(shelf + 1, shelf + 9, 2):
        b[5 + rng.integers(0, 2) : 9, book : book + 2] = 5 + rng.integers(0, 3)


#: In the order of the attribute ``place``.
PLACES = (class_room, forest, beach, night, city, room)


@cache
def backgrounds() -> np.ndarray:
    """Roles of every background, (places, VARIANTS, 32, 32)."""
    rng = np.random.default_rng(20231105)
    bank = np.zeros((len(PLACES), VARIANTS, SIZE, SIZE), np.int64)
    for variant in range(VARIANTS):
        for place, paint in enumerate(PLACES):
            paint(bank[place, variant], variant, rng)
    return bank
