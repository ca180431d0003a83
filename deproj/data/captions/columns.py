"""Which column holds the captions, and the captions in one row of it.

A column may be a list of captions, and may lie within objects: ``caption.en``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deproj.data.captions.values import described, is_nothing, listed, sort_of
from deproj.process.errors import UserError
from deproj.process.letters import check_encodable

__all__ = ["KNOWN", "MISSING", "SAMPLED", "choose", "field", "texts_of", "wrong_column"]

#: Names that a column of captions goes by.
KNOWN = ("caption", "captions", "text", "texts", "prompt", "prompts")
#: Rows that are looked at to find the column.
SAMPLED = 100


class Missing:
    """What a row without the column has in its place."""


MISSING = Missing()


def field(row: Any, column: str) -> Any:
    """The value of a column in a row; `MISSING` where there is none.

    Args:
        column: a name, or names joined by dots: the column ``en`` within the objects of the column ``caption``.
    """
    if isinstance(row, list):
        inner = [value for one in row if (value := field(one, column)) is not MISSING]
        return inner if inner or not row else MISSING
    if not isinstance(row, Mapping):
        return MISSING
    if column in row:
        return row[column]
    head, dot, rest = column.partition(".")
    return field(row[head], rest) if dot and isinstance(row.get(head), (Mapping, list)) else MISSING


def texts_of(value: Any, where: str) -> Iterator[str | None]:
    """The captions that a value holds, None for an empty place.

    Args:
        where: for messages: the file, the place and the column.

    Raises:
        UserError: for what is no text.
    """
    if is_nothing(value):
        yield None
    elif isinstance(value, str):
        yield value
    elif isinstance(value, list):
        if not value:
            yield None
        for one in value:
            yield from texts_of(one, where)
    else:
        raise UserError(f"{where} holds {described(value)}, where a text is needed.")


def wrong_column(name: object, column: str, names: Any) -> UserError:
    return UserError(f"{name} has no column {column!r}; it has: {listed(names)}.")


def choose(name: str, column: str | None, rows: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """The column of the captions.

    Args:
        column: as it was asked for; None finds the one column of texts, or the one of these that goes by a known name.
        rows: the first ones, each with its place, as in "line 3".

    Raises:
        UserError: for a column that isn't there or holds no texts, and where several could be meant.
    """
    values = [row for _, row in rows]
    names = list(dict.fromkeys(name for row in values for name in row))
    for one in names:
        check_encodable(one, f"{name}, the column's name")
    texts = [path for path in dict.fromkeys(path for row in values for path in paths(row)) if holds_texts(values, path)]
    known = [path for path in texts if path.rpartition(".")[2].lower() in KNOWN]
    if column is None:
        for found in (texts, known):
            if len(found) == 1:
                return found[0]
        if texts:
            raise UserError(f"{name} needs data.column=, the name of the captions' column; it has: {listed(known or texts)}.")
        if not (named := [key for key in names if key.lower() in KNOWN]):
            raise UserError(f"{name} has no column of texts; it has: {listed(names)}.")
        column = named[0]  # which holds something else, as is now told
    held = [(place, value) for place, row in rows if (value := field(row, column)) is not MISSING]
    if not held:
        raise wrong_column(name, column, dict.fromkeys([*names, *texts]))
    check_texts(name, column, held, texts)
    return column


def check_texts(name: str, column: str, held: Sequence[tuple[str, Any]], others: Sequence[str]) -> None:
    """Refuses a column that holds no texts.

    Args:
        held: values with their places.
        others: columns that do.
    """
    hint = f" Of texts: {listed(others)}." if others else ""
    texts = []
    for place, value in held:
        try:
            texts += [
                (place, text) for text in texts_of(value, f"{name}, {place}: the column {column!r}") if text and text.strip()
            ]
        except UserError as error:
            raise UserError(f"{error}{hint}") from None
    sorts = [sort_of(text) for _, text in texts]
    if texts and None not in sorts:
        place, text = texts[0]
        raise UserError(f"{name}, {place}: the column {column!r} holds {sorts[0]} ({text}), where texts are needed.{hint}")


def paths(row: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Columns of a row, those within objects too, by dotted name."""
    for name, value in row.items():
        inner = next((one for one in value if isinstance(one, Mapping)), value) if isinstance(value, list) else value
        if isinstance(inner, Mapping):
            yield from paths(inner, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def holds_texts(rows: Sequence[Mapping[str, Any]], column: str) -> bool:
    """Whether a column holds texts, and nothing else, and not numbers or names of files alone."""
    try:
        found = [text for row in rows if (value := field(row, column)) is not MISSING for text in texts_of(value, "")]
    except UserError:
        return False
    return any(text and text.strip() and sort_of(text) is None for text in found)
