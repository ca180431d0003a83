"""The one exception for a user's mistakes, and how a command ends on it."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from deproj.process.system import print_any_script, wait_briefly

__all__ = ["UserError", "run_command", "user_error_of"]


class UserError(ValueError):
    """What was got, what is allowed and what to do, in one or two lines; commands print it and exit with 1."""


#: Errors of the operating system that a user can mend.
DISK = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR),
    *(errno.EFBIG, errno.EIO, errno.ENAMETOOLONG, errno.ELOOP),
}

#: What torch says where a tensor finds no room and the error has no class of its own.
NO_ROOM = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "DefaultCPUAllocator: can't allocate memory")


def user_error_of(error: BaseException, folder: object = None) -> UserError | None:
    """The error as the user's, if it is one: a mistake in what was asked, a full memory, or a disk that can't be written.

    Args:
        folder: what was being written, where the error itself may name a temporary file.
    """
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.errno in DISK:
        if folder is not None and isinstance(error.filename, str) and not Path(error.filename).is_relative_to(str(folder)):
            return UserError(f"{error.strerror}: {error.filename}.")  # a file that was read, for example
        return UserError(f"{error.strerror}: {folder or error.filename or 'while writing'}. Make room or name another folder.")
    # torch.save and safetensors don't raise OSError when the disk is full
    if any(part in str(error) for part in ("PytorchStreamWriter", "inline_container")) or (
        type(error).__name__ == "SafetensorError" and "space" in str(error)
    ):
        return UserError("the weights could not be written; is the disk full? What was written before is kept.")
    if any(map(is_memory, chain(error))):
        return UserError(
            "the memory is full. In training, lower data.batch_size; elsewhere, ask for fewer prompts or pictures at once."
        )
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came from or came upon."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def is_memory(error: BaseException) -> bool:
    """Whether tensors found no room, on a GPU or a CPU; torch has a class of its own for a GPU only, and not in all libraries."""
    return type(error).__name__ == "OutOfMemoryError" or any(said in str(error) for said in NO_ROOM)


def run_command(command: Callable[[], None], folder: object = None) -> int:
    """Runs a command and returns its exit code; the user's mistakes become a line or two on stderr.

    Our own mistakes keep their traceback.

    Args:
        folder: that the command writes to, where there is one.
    """
    print_any_script()
    wait_briefly()
    try:
        command()
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        if (told := user_error_of(error, folder)) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        return 1
    return 0
