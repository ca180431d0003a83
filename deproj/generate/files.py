"""Pictures, sheets and states as files, which replace none of before."""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL.Image import Image, fromarray

from deproj.clip.pictures import fingerprint
from deproj.draw.sheets import TRUE_STATES, enlarged, sheet
from deproj.draw.stamp import Stamp
from deproj.expression import parse
from deproj.process.errors import UserError
from deproj.process.files import replacing

if TYPE_CHECKING:
    from torch import Tensor

    from deproj.pipeline import DeprojectorPipeline

__all__ = ["first_free", "numbered", "pictures_of", "save_conditioning", "sheets_of", "writable"]

#: Pictures smaller than this are enlarged when they are written, without smoothing.
SIDE = 256
#: Why a cell of the true states is grey.
NO_TRUE_STATES = "none: only texts and sums of texts have true states"
#: Pictures side by side on a sheet; the rest get sheets of their own.
COLUMNS = 8


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Makes a folder for what is drawn in the block, and takes it away again where that fails and it is empty.

    Raises:
        UserError: for one that can't be written to, before anything is drawn for it.
    """
    whole = Path(os.path.abspath(folder))
    made = [path for path in (whole, *whole.parents) if not path.exists()]
    probe = folder / f".{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}; name another folder with --out.") from None
    try:
        yield
    except BaseException:
        with suppress(OSError):
            for path in made:
                path.rmdir()
        raise


def pictures_of(
    drawn: Tensor,
    labels: list[str],
    seeds: list[int],
    called: dict[str, Image],
    pipe: DeprojectorPipeline,
    args: argparse.Namespace,
    stamp: Stamp | None,
) -> dict[str, tuple[Image, Stamp]]:
    """Each picture (height, width, 3) uint8 by the name of its file, with what it was made of.

    Args:
        called: pictures that were handed over, by their names.
        stamp: of the picture that is drawn again.
    """
    found, height, width = {}, drawn.shape[1], drawn.shape[2]
    of_all = Stamp(
        *("", args.negative, 0, pipe.steps, pipe.guidance, type(pipe.scheduler).__name__, args.strength),
        *(args.model, pipe.model.weights_hash, pipe.path, pipe.encoder.hash, width, height),
    )
    prints = {name: fingerprint(picture) for name, picture in called.items()}
    for k, picture in enumerate(drawn):
        number, label = k // args.count, labels[k // args.count]
        name = f"strip-{number + 1:02d}" if args.between else f"{number + 1:03d}-{slug(label)}".strip("-")
        name += f"-{seeds[k]}" if args.count > 1 else ""
        made_of = replace(of_all, prompt=label, seed=seeds[k])
        if stamp is not None:
            made_of = replace(made_of, prompt=stamp.prompt, to=stamp.to, share=stamp.share)
        if args.between:
            made_of = replace(made_of, prompt=args.between[0], to=args.between[1], share=number / (args.steps - 1))
        names = {name for text in (made_of.prompt, made_of.to or "", args.negative) for name in parse(text).names}
        made_of = replace(made_of, pictures={name: prints[name] for name in prints if name in names})
        found[f"{name}.png"] = enlarged(fromarray(picture.numpy()), SIDE), made_of
    return found


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")


def sheets_of(
    drawn: Tensor, above: Tensor | None, labels: list[str], untrue: list[int], args: argparse.Namespace
) -> dict[str, Image]:
    """The pictures side by side, by the names of their files.

    Args:
        untrue: which prompts have no true states to be drawn beside them.
    """
    import torch  # see `load`

    name, found = "strip" if args.between else "sheet", {}
    for number, part in enumerate(torch.arange(len(drawn)).split(COLUMNS), 1):
        file = f"{name}.png" if number == 1 else f"{name}-{number}.png"
        found[file] = sheet_of(drawn, above, part, labels, untrue, args)
    return found


def sheet_of(
    drawn: Tensor, above: Tensor | None, part: Tensor, labels: list[str], untrue: list[int], args: argparse.Namespace
) -> Image:
    """Some of the pictures side by side, with the row of the true states where there is one."""
    first = TRUE_STATES + (", mixed" if args.between else "")
    rows = {} if above is None else {first: above[part]}
    notes = {(first, column): NO_TRUE_STATES for column, k in enumerate(part.tolist()) if k // args.count in untrue}
    own = "deprojected" if args.strength == 1 else f"deprojected, strength {args.strength:g}"
    return sheet(rows | {own: drawn[part]}, [labels[k // args.count] for k in part.tolist()], halves=False, notes=notes)


def save_conditioning(
    states: Tensor, negative: Tensor, labels: list[str], pipe: DeprojectorPipeline, args: argparse.Namespace
) -> None:
    """Writes states and those of the negative prompt, (N, 77, D) float32 each, by the names of diffusers' arguments."""
    from safetensors.torch import save  # imports torch: see `load`

    tensors = {"prompt_embeds": states, "negative_prompt_embeds": negative.expand_as(states)}
    told = {
        "prompts": json.dumps(labels, ensure_ascii=False),
        "negative_prompt": args.negative,
        "strength": f"{args.strength:g}",
        "model": args.model,
        "model_hash": pipe.model.weights_hash,
        "encoder": pipe.encoder.hash,
        "clip_skip": str(pipe.encoder.clip_skip),
    }
    path = args.save_conditioning
    kept = ", in the place of those that were there" if path.exists() else ""
    with replacing(path) as temporary:
        temporary.write_bytes(save({name: value.float().cpu().contiguous() for name, value in tensors.items()}, told))
    print(f"Wrote the states of {len(states)} prompt{'s' * (len(states) > 1)} to {path}{kept}.")


def first_free(folder: Path, names: list[str]) -> int:
    """The first number from 1 on with which none of the names is taken."""
    number = 1
    while any((folder / numbered(name, number)).exists() for name in names):
        number += 1
    return number


def numbered(name: str, number: int) -> str:
    """A file's name with a number, as browsers write it; without it for 1."""
    return name if number == 1 else f"{Path(name).stem} ({number}){Path(name).suffix}"
