"""Files written whole or not at all, and work that only one process does at a time."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import FileLock, Timeout

from deproj.process.errors import UserError
from deproj.process.system import replace

__all__ = [
    "alone",
    "below",
    "intact",
    "named_path",
    "refuse_pointer",
    "release_logs",
    "replacing",
    "write_checksums",
    "write_whole",
]


#: In a folder that ships: what its weights' checksums are, as ``sha256sum`` writes them.
CHECKSUMS = "SHA256SUMS"
#: How a pointer file of Git LFS begins.
POINTER = b"version https://git-lfs.github.com/spec/"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a path beside `path` to write to; it takes the place of `path` when the block ends well, else it is removed.

    Beside it and not in the system's folder for temporary files, since renaming is atomic on one disk only; under a name of its
    own, so that two writers don't meet. It is on the disk before it is renamed, so that a power cut leaves one of the two.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            sync(file.fileno())
        replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sync(file: int) -> None:
    """Waits until an open file is on the disk, as far as its file system can say that."""
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def write_whole(path: Path, text: str) -> None:
    """Writes a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape", newline="\n")  # a path as the system gave it


@contextmanager
def alone(path: Path, waiting: str = "", refusal: str = "", patience: float = 0.0) -> Iterator[None]:
    """Keeps other processes out of the block; when this process dies, the system lets them in.

    Args:
        path: of the lock file, which stays.
        waiting: what a user is told who has to wait.
        refusal: what a user is told who shall not wait.
        patience: seconds before the refusal, for a process that only looks whether there is another one.

    Raises:
        UserError: the refusal, where there is one and another process is in the block.
        OSError: where the lock can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        if refusal:
            raise UserError(refusal) from None
        if waiting:
            print(waiting, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def below(folder: Path) -> Iterator[Path]:
    """Files in a folder and below it, also behind links to folders; each folder once, so that links in a circle end.

    Raises:
        OSError: for a folder that can't be read.
    """
    waiting, links, seen = [folder], list[Path](), set[str]()
    while waiting or links:  # folders by their own names first
        here = waiting.pop() if waiting else links.pop(0)
        if (real := os.path.realpath(here)) in seen:
            continue
        seen.add(real)
        with os.scandir(here) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            if entry.is_dir():
                (links if entry.is_symlink() else waiting).append(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)


def refuse_pointer(path: Path) -> None:
    """Refuses a file that only points to one in git's store for large files; any other passes, also one that isn't there.

    Raises:
        UserError: with the command that brings the file.
    """
    try:
        with path.open("rb") as file:
            pointer = file.read(len(POINTER)) == POINTER
    except OSError:
        return
    if pointer:
        raise UserError(f"{path} is a pointer of git's store for large files, not the file: run `git lfs pull` there.")


def release_logs(folder: Path) -> None:
    """Closes the log files of this process that lie in a folder: Windows deletes no file that is open."""
    for handler in logging.getLogger().handlers[:]:
        if isinstance(handler, logging.FileHandler) and Path(handler.baseFilename).is_relative_to(folder.absolute()):
            handler.close()
            logging.getLogger().removeHandler(handler)


def write_checksums(folder: Path) -> None:
    """Notes the checksums of all weights in a folder, for `intact`."""
    found = sorted(folder.rglob("*.safetensors"))
    lines = (f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(folder).as_posix()}\n" for path in found)
    write_whole(folder / CHECKSUMS, "".join(lines))


def named_path(typed: str) -> Path:
    """A path on the command line, where an empty one, as of a variable that isn't set, would be the folder that one stands in."""
    if not typed.strip():
        raise ArgumentTypeError("it is empty; name a path, or . for the present folder")
    return Path(typed)


@cache
def intact(folder: Path) -> Path:
    """A folder that ships, once in a process its weights have been checked: a flipped bit would pass for a weight.

    Raises:
        UserError: for weights that are missing or damaged.
    """
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        noted, name = line.split(maxsplit=1)
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != noted:
            raise UserError(f"{path} is {'damaged' if path.is_file() else 'missing'}: check deproj out, or install it, again.")
    return folder
