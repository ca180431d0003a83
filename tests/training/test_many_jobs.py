"""Twenty jobs in one process, as a sweep runs them: they leave no open files, no threads and no memory behind."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from conftest import Ended, linux_only

import deproj.train

JOBS = 20
#: After so many jobs all that is loaded or kept once is there.
SETTLED = 5
#: Bytes that a job may leave behind on average: the allocator gives back pages as it likes.
EACH = 2 * 2**20


class Held(NamedTuple):
    """What a process holds."""

    files: int
    threads: int
    python_threads: int
    resident: int


def held() -> Held:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return Held(
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        threading.active_count(),
        pages * os.sysconf("SC_PAGE_SIZE"),
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small products are no faster on more, and much slower where the cores are busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@linux_only
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("one_thread")
def test_twenty_jobs_leave_nothing_behind(train: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    after: list[Held] = []
    run = deproj.train.run

    def counted(*arguments: Any, **options: Any) -> float:
        loss = run(*arguments, **options)
        after.append(held())
        return loss

    monkeypatch.setattr(deproj.train, "run", counted)
    seeds = ",".join(map(str, range(JOBS // 2)))
    small = ["data.size=40", "data.held_out=10", "model.hidden=16", f"data.cache={tmp_path / 'caches'}"]
    ended = train("-m", f"seed={seeds}", "data.keep=states,tokens", *small, "hydra.sweep.dir=sweep")
    assert ended.code == 0, ended.err
    assert len(after) == JOBS
    settled, last = after[SETTLED], after[-1]
    assert last.files <= settled.files, after
    assert last.threads <= settled.threads, after
    assert last.python_threads <= settled.python_threads, after
    assert last.resident - settled.resident < EACH * (JOBS - SETTLED), after
