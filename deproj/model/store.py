"""Models as files: where one is found, and how it is written and read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, Self, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load as parsed
from safetensors.torch import save as serialized

from deproj.clip.distance import EmbeddingDistance
from deproj.model.card import FILES, model_card
from deproj.pixel import MODELS, shipped
from deproj.process.checkpoint import read_checkpoint
from deproj.process.errors import UserError
from deproj.process.files import intact, refuse_pointer, replacing, write_whole
from deproj.process.hub import download, upload
from deproj.runs.folder import RunFolder

__all__ = ["load", "locate_model", "push", "save"]


class Storable(Protocol):
    """What a model must have to be stored: `deproj.model.base.Deprojector` has it."""

    distance: EmbeddingDistance | None
    sheet: bytes | None

    def stored(self) -> dict[str, Any]: ...

    @classmethod
    def of_config(cls, stored: dict[str, Any]) -> Self: ...

    def state_dict(self) -> dict[str, Any]: ...

    def named_parameters(self) -> Iterator[tuple[str, Any]]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


Model = TypeVar("Model", bound=Storable)

#: A model's file of numbers.
WEIGHTS = "model.safetensors"


def locate_model(source: str | Path, revision: str | None = None) -> Path:
    """The folder of an exported model, or the best checkpoint of a run that isn't done.

    Args:
        source: that folder, a run's folder, a short name (`shipped`), or a hub id, which is downloaded once.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: where there is none.
    """
    if not isinstance(source, (str, Path)) or not str(source).strip():
        got = repr(source) if isinstance(source, str) else type(source).__name__
        raise UserError(f"a deprojector is named by its folder, its hub id or its short name; got {got}.")
    folder = Path(source)
    run = RunFolder(folder)
    if run.model.is_dir():
        return run.model
    if run.is_run:
        if run.best_checkpoint.is_file():
            return run.best_checkpoint
        raise UserError(f"{folder} is no deprojector, but a run whose training isn't done; its first epoch isn't either.")
    if folder.is_dir():
        return folder
    if str(source) in shipped():
        return intact(MODELS) / str(source)
    if folder.is_absolute() or len(folder.parts) != 2 or folder.parts[0] in (".", "..") or holds_runs(folder.parent):
        raise UserError(
            f"{source} is no deprojector: give a run's folder, an exported model's, a hub id such as owner/name, "
            f"or one of {', '.join(shipped())}.{did_you_mean(folder)}"
        )
    return download(str(source), FILES, revision)


def holds_runs(folder: Path) -> bool:
    """Whether a folder is one of runs or sweeps, so that what it lacks needs no looking for on the Hub."""
    configs = (config for pattern in ("*/config.yaml", "*/*/config.yaml") for config in folder.glob(pattern))
    return any(RunFolder(config.parent).is_run for config in configs)


def did_you_mean(folder: Path) -> str:
    """What stands beside a folder that isn't there, or ships, under a name like its own."""
    beside: list[str] = []
    with suppress(OSError):
        beside = [path.as_posix() for path in folder.parent.iterdir() if RunFolder(path).is_run or (path / WEIGHTS).is_file()]
    near = get_close_matches(folder.as_posix(), [*shipped(), *beside], 1)
    return f" Did you mean {near[0]}?" if near else ""


def save(model: Storable, folder: Path, repo_id: str | None = None, half: bool = False) -> None:
    """Writes ``config.json``, ``model.safetensors`` and the card, each whole or not at all.

    Args:
        repo_id: hub id that the card names the model by; by default the folder's name.
        half: whether what is learnt is stored in float16, else all in float32.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, state, learnt = model.stored(), model.state_dict(), dict(model.named_parameters())
    if model.distance is not None:
        state |= {f"distance.{name}": value for name, value in model.distance.named_buffers()}
    state = {name: value.detach().float().cpu().contiguous() for name, value in state.items()}
    if half:
        state = {name: value.half() if name in learnt else value for name, value in state.items()}
    with replacing(folder / WEIGHTS) as weights:
        weights.write_bytes(serialized(state))  # safetensors' own way of writing lets nobody else read the file
    write_whole(folder / "config.json", json.dumps(config, indent=2) + "\n")
    if model.sheet is not None:
        with replacing(folder / "sheet.png") as picture:
            picture.write_bytes(model.sheet)
    write_whole(folder / "README.md", model_card(config, repo_id or folder.name, model.sheet is not None))


def push(model: Storable, repo_id: str, message: str, private: bool | None, token: str | None, **options: Any) -> str:
    """Uploads what `save` writes; returns the address of the commit."""
    with TemporaryDirectory() as folder:
        save(model, Path(folder), repo_id)
        return upload(Path(folder), FILES, repo_id, message, private, token, **options)


def load_checkpoint(cls: type[Model], path: Path) -> Model:
    """The model of a run's checkpoint, as good as it was then.

    Raises:
        UserError: for one that is damaged, or that an earlier version wrote.
    """
    content = read_checkpoint(path, "resume the run")
    if "deprojector" not in content:
        raise UserError(f"{path} is of an earlier version, which can't be drawn from before the run is done; resume it.")
    model = cls.of_config(content["deprojector"])
    model.load_state_dict({k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")})
    print(f"{path.parents[1]} isn't done; taken are its best weights so far, of epoch {content['epoch'] + 1}.")
    return model


def load(cls: type[Model], folder: Path) -> Model:
    """A model of a folder that `save` wrote, or of a checkpoint.

    Raises:
        UserError: for a folder that holds no deprojector of this class, and for one that is damaged.
    """
    if folder.is_file():
        return load_checkpoint(cls, folder)
    if not (folder / "config.json").is_file() or not (folder / WEIGHTS).is_file():
        raise UserError(f"{folder} is no deprojector: it needs config.json and {WEIGHTS}.")
    for name in ("config.json", WEIGHTS):
        refuse_pointer(folder / name)
    try:
        model = cls.of_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        state = parsed((folder / WEIGHTS).read_bytes())  # no memory map, over which Windows would let nobody write
        kept = {name.removeprefix("distance."): state.pop(name) for name in list(state) if name.startswith("distance.")}
        model.distance = EmbeddingDistance(**kept) if kept else None
    except UserError as error:
        raise UserError(f"{folder} {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError, SafetensorError) as error:
        raise UserError(f"{folder} is damaged or no deprojector of ours: {type(error).__name__}: {error}.") from None
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise UserError(f"{folder}: the weights do not fit config.json: {str(error).splitlines()[-1].strip()}") from None
    if (folder / "sheet.png").is_file():
        model.sheet = (folder / "sheet.png").read_bytes()
    return model
