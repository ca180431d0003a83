"""Which errors are a user's to mend."""

from __future__ import annotations

import pytest
import torch

from deproj.process.errors import run_command, user_error_of


def later() -> Exception:
    """An error that came upon a full memory."""
    try:
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        except RuntimeError:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture") from None
    except RuntimeError as error:
        error.__suppress_context__ = False
        return error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        later(),
    ],
    ids=["torch's", "cuBLAS's", "one that followed"],
)
def test_a_full_memory_is_one_line_that_names_the_batch_size(error: Exception, capsys: pytest.CaptureFixture[str]):
    def command() -> None:
        raise error

    assert run_command(command) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: the memory is full")
    assert "data.batch_size" in line


def test_a_full_memory_of_the_cpu_is_told_alike(capsys: pytest.CaptureFixture[str]):
    assert run_command(lambda: torch.empty(1 << 50)) == 1  # type: ignore[arg-type, return-value]
    assert "data.batch_size" in capsys.readouterr().err


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: an illegal memory access was encountered"), ValueError("wrong")])
def test_our_own_mistakes_are_not(error: Exception):
    assert user_error_of(error) is None
