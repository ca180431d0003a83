"""The files that a path means: one file, a folder of them, or a pattern of shards."""

from __future__ import annotations

import errno
import glob
import os.path
from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path

from deproj.data.captions.text_files import kind_of, readable
from deproj.process.errors import UserError
from deproj.process.files import below

__all__ = ["KINDS", "files_of", "is_beside_picture", "pictures_in"]

#: What is read, by the end of the name; each has a reader in `open.READERS`.
KINDS = (".txt", ".csv", ".tsv", ".jsonl", ".json", ".parquet")
#: What kohya's trainers write beside a picture, besides .txt; read in folders alone.
BESIDE = (".txt", ".caption")
#: Where folders of pictures keep their captions in `datasets`.
METADATA = ("metadata.jsonl", "metadata.csv", "metadata.parquet")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".avif", ".tif", ".tiff", ".jxl")


def files_of(prompts: str) -> list[Path]:
    """The files that are meant, in order.

    Args:
        prompts: the path of a file or a folder, or a pattern with ``*``, ``?`` or ``[…]``.

    Raises:
        UserError: where there is none, and for files of several kinds.
    """
    if not prompts.strip():
        raise UserError("data.prompts is empty; name a file, a folder, a quoted pattern or hub:owner/name.")
    if "://" in prompts:
        raise UserError(f"{prompts}: captions are not fetched from addresses; download the file and name it here.")
    path = Path(prompts)
    with readable(path):
        if os.path.isfile(path):
            check_kind(path)
            return [path]
        if os.path.isdir(path):
            return files_in(path)
    if glob.has_magic(prompts):
        found = sorted(Path(name) for name in glob.glob(prompts, recursive=True) if os.path.isfile(name))
        if not found:
            raise UserError(f"no prompts file fits the pattern {prompts}.")
        for one in found:
            check_kind(one, beside=True)
        return one_kind(found, prompts)
    raise absent(path)


def absent(path: Path) -> UserError:
    """Why there is no file at a path."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return UserError(f"no prompts file at {str(path)[:40]}…, which is too long for a name; give the path of a file.")
        if path.is_symlink():
            return UserError(f"no prompts file at {path}, a link that leads nowhere.")
        return UserError(f"no prompts file at {path}.")
    except ValueError:  # U+0000 in a name
        return UserError(f"no prompts file at {str(path)!r}.")
    return UserError(f"{path} is neither a file nor a folder.")


def check_kind(path: Path, beside: bool = False) -> None:
    """Refuses a file that is not read.

    Args:
        beside: whether the files beside pictures are.
    """
    if kind_of(path) not in (KINDS + BESIDE if beside else KINDS):
        raise UserError(
            f"{path}: prompts are read from {', '.join(KINDS)} files, compressed too (.gz, .zst); its name ends in none of these."
        )


def files_in(folder: Path) -> list[Path]:
    """The files of a folder and below it that hold captions."""
    with readable(folder):
        there = sorted(path for path in below(folder) if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    if metadata := [path for path in there if path.name.lower() in METADATA]:
        return one_kind(metadata, str(folder))
    found = [path for path in there if kind_of(path) in KINDS + BESIDE]
    if not found:
        raise UserError(f"{folder} holds no captions: there is no {', '.join(KINDS)} file in it.")
    return one_kind(found, str(folder))


def one_kind(paths: Sequence[Path], name: str) -> list[Path]:
    """Files of one kind; ``.txt`` and ``.caption`` are one."""
    kinds = Counter(".txt" if kind_of(path) in BESIDE else kind_of(path) for path in paths)
    if len(kinds) > 1:
        there = ", ".join(f"{count:,} {kind}" for kind, count in kinds.items())
        where = os.path.dirname(name) if glob.has_magic(name) else name
        most = max(kinds, key=lambda kind: (kinds[kind], kind != ".txt"))  # a .txt among others is a note
        pattern = os.path.join(where, f"*{most}")
        raise UserError(f"{name} holds files of several kinds ({there}); name those of one by a pattern: '{pattern}'.")
    return list(paths)


def is_beside_picture(path: Path, pictures: Container[str]) -> bool:
    """Whether a text file is the caption of a picture that has the same name.

    Args:
        pictures: the names of the pictures in the file's folder, without their ends.
    """
    return kind_of(path) in BESIDE and (path.suffix.lower() == ".caption" or path.stem.casefold() in pictures)


def pictures_in(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names, without their ends and in small letters; of several, the first in `PICTURES`."""
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    found.sort(key=lambda path: PICTURES.index(path.suffix.lower()), reverse=True)
    return {path.stem.casefold(): path for path in found}
