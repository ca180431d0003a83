"""Memory of the process that the C library holds back."""

from __future__ import annotations

import ctypes
import sys

__all__ = ["give_back"]

#: glibc's; other C libraries have none.
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def give_back() -> None:
    """Gives free memory back to the system, 5 ms; without effect where the C library isn't glibc.

    glibc itself gives back only what is at the end of its heap. Batches of ever other lengths leave holes before that, and
    over thousands of them the heap grows around these (experiments/scale).
    """
    if _trim is not None:
        _trim(0)
