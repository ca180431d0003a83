"""What a command has made before its run begins, and its removal where nothing begins."""

from __future__ import annotations

import contextlib
import itertools
import os.path
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from deproj.process.errors import UserError
from deproj.process.files import alone, release_logs
from deproj.process.system import WINDOWS
from deproj.settings.shipped import named_by_time

__all__ = ["Made", "remove_if_unused"]


class Made(Callback):
    """What this process makes before a run begins, noted when Hydra is about to: nothing else is ever taken away.

    Attributes:
        folders: the run's, if it wasn't there, and those above it that weren't, the deepest first.
        files: of the run's folder, that weren't there.
    """

    folders: ClassVar[list[Path]] = []
    files: ClassVar[list[Path]] = []

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        try:
            folder = Path(config.hydra.run.dir).absolute()
        except OmegaConfBaseException:  # which Hydra meets too, and tells
            return
        if named_by_time(config.hydra) and not config.get("resume"):
            with read_write(config), open_dict(config):
                config.hydra.run.dir = str(new_folder(Path(config.hydra.run.dir)))
            folder = Path(config.hydra.run.dir).absolute()
        # os.path's, unlike Path's, also take names that are too long
        Made.folders = Made.folders or [path for path in (folder, *folder.parents) if not os.path.exists(path)]
        Made.files = [path for name in ("train.log", ".lock") if not os.path.exists(path := folder / name)]

    @classmethod
    def reset(cls) -> None:
        cls.folders, cls.files = [], []


def new_folder(named: Path) -> Path:
    """Makes a folder that nobody has, by this name or a numbered one."""
    for k in itertools.count(1):
        folder = named if k == 1 else named.with_name(f"{named.name}_{k}")
        parent = not folder.parent.exists()
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError:
            return folder  # Hydra raises the same, where it is reported
        Made.folders = [folder.absolute(), *([folder.parent.absolute()] if parent else [])]
        return folder
    raise AssertionError


def remove_if_unused(folder: Path) -> None:
    """Takes away what this process has made for a run in which nothing has begun; not another process's, nor the user's."""
    if not folder.is_dir():
        return
    names = {path.name for path in folder.iterdir()}
    if folder.absolute() not in Made.folders or not names <= {"train.log", ".lock"}:
        return
    release_logs(folder)
    with contextlib.suppress(UserError, OSError):
        with alone(lock := folder / ".lock", refusal="another process has begun"):
            for path in Made.files:
                if path != lock.absolute() or not WINDOWS:  # which deletes no file that is held
                    path.unlink(missing_ok=True)
        if WINDOWS and lock.absolute() in Made.files:
            lock.unlink(missing_ok=True)
        for path in Made.folders:
            path.rmdir()  # unless there is anything else in it
