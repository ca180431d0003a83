"""Draws pictures through a deprojector: ``python -m deproj.generate MODEL "cat, maid" "<photo>, red hair" --image photo.png``.

Prompts are read as `deproj.expression` says. Pictures are called by their file's name without its ending; those that no
prompt calls are drawn by themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageOps
from PIL.Image import Image, fromarray

from deproj.data.captions.open import read_captions
from deproj.draw.settings import SdSettings
from deproj.draw.sheets import TRUE_STATES, enlarged, save_image, sheet
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.draw.stamp import Stamp
from deproj.expression import Expression, Named, Picture, between, hints_at, parse
from deproj.process.errors import UserError, run_command
from deproj.process.files import replacing
from deproj.process.letters import typed_text
from deproj.process.progress import Phase, progress_here
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.settings.inside import settings_inside

if TYPE_CHECKING:
    from torch import Tensor

    from deproj.draw.settings import SdSettings
    from deproj.pipeline import DeprojectorPipeline

__all__: list[str] = []

#: Seeds are below this.
SEEDS = 2**63
#: Pictures smaller than this are enlarged when they are written, without smoothing.
SIDE = 256
#: Why a cell of the true states is grey.
NO_TRUE_STATES = "none: only texts and sums of texts have true states"
#: Pictures side by side on a sheet; the rest get sheets of their own.
COLUMNS = 8


def read_prompts(args: argparse.Namespace) -> list[tuple[str, Expression]]:
    """What is to be drawn: labels and expressions."""
    texts = list(args.prompts)
    if args.file is not None:
        read = read_captions(str(args.file))
        if read.reading.altered:
            print(read)
        texts += read.texts()
    if args.between is not None:
        if texts:
            raise UserError("--between draws its own two prompts; leave the others out.")
        texts = list(args.between)
    found: list[tuple[str, Expression]] = []
    for text in texts:
        expression = parse(text)
        if not expression.terms:
            raise UserError(f"prompt {len(found) + 1} is empty; for the empty prompt itself write '\"\"'.")
        found.append((text, expression))
    return found


def named_pictures(paths: list[Path]) -> dict[str, Image]:
    """Pictures by their files' names."""
    from deproj.clip.images import open_picture  # imports torch: see `load`

    pictures: dict[str, Image] = {}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in paths:
            if path.stem in pictures:
                raise UserError(f"two pictures are named {path.stem}; rename one of them.")
            pictures[path.stem] = open_picture(path)
    for warning in caught:
        print(f"warning: {warning.message}", file=sys.stderr)
    return pictures


def check_writable(folder: Path) -> None:
    """Refuses a folder before anything is drawn for it."""
    probe = folder / f".{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"{folder} cannot be written to: {error.strerror}; name another folder with --out.") from None


def sd_of(args: argparse.Namespace) -> SdSettings:
    """The Stable Diffusion that is named, or the run's own, or the pixel world."""
    run = RunFolder(Path(args.model))
    if args.sd is None and (inside := settings_inside(args.model)) is not None:
        chosen = StableDiffusion.of(inside).settings
    elif args.sd is None and run.is_run:
        chosen = StableDiffusion.of(run.read_config()).settings
    else:
        chosen = StableDiffusion.named(args.sd or "pixel", args.clip).settings
    changed = {"clip": args.clip, "steps": args.sampler_steps, "guidance": args.guidance}
    return replace(chosen, **{name: value for name, value in changed.items() if value is not None})


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")


class Drawing:
    """Draws states in chunks that fit.

    Args:
        phase: is told of each picture's steps.
    """

    def __init__(self, pipe: DeprojectorPipeline, negative: Expression, pictures: dict[str, Image], phase: Phase) -> None:
        self.pipe, self.negative, self.pictures, self.phase = pipe, negative, pictures, phase

    def __call__(self, states: Tensor, seeds: list[int]) -> Tensor:
        """Pictures (B, height, width, 3) uint8 of states (B, 77, D)."""
        import torch  # see `load`

        drawn = []
        for rows in torch.arange(len(states)).split(self.pipe.chunk):
            positive, negative = self.pipe.with_negative(states[rows], self.negative, self.pictures)
            chosen = [seeds[row] for row in rows.tolist()]
            drawn.append(self.pipe.draw(positive, negative, chosen, step=self.phase.advance))
        return torch.cat(drawn)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deproj.generate",
        description=(__doc__ or "").splitlines()[0],
        epilog="Prompts that begin with - stand after --, and a negative one behind =: --negative=-cat -- '-red hair'. "
        f"The pixel world's words: {StableDiffusion.named('pixel').words}.",
    )
    parser.add_argument("model", nargs="?", metavar="MODEL", help="a run's folder, an exported model's, a hub id or a short name")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="as in 'cat, maid' or '1girl, red hair:1.2, -black skirt'")
    parser.add_argument("--file", type=Path, help="a file of prompts, read as captions are: a line each in a .txt")
    parser.add_argument(
        "--image", action="append", default=[], type=Path, metavar="PICTURE", help="photo.png is <photo> in prompts"
    )
    parser.add_argument("--again", type=Path, metavar="PICTURE", help="draws a picture once more, by what its PNG says")
    parser.add_argument("--between", nargs=2, metavar=("A", "B"), help="a strip of pictures from one prompt to another")
    parser.add_argument("--steps", type=int, default=8, help="pictures in that strip (8)")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="a sheet with the pictures of the true states above; for a picture itself its middle, which CLIP sees; else grey",
    )
    parser.add_argument("--count", type=int, default=1, help="pictures of each prompt (1), from seeds one after another")
    parser.add_argument("--seed", type=int, help="of the first picture of each prompt (0)")
    parser.add_argument("--negative", default="", metavar="PROMPT", help="what is to be avoided")
    parser.add_argument("--strength", type=float, help="from the true states (0) to the deprojected ones (1, the default)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance (the run's)")
    parser.add_argument("--sampler-steps", type=int, help="of the sampler (the run's)")
    parser.add_argument("--sd", help="folder, .safetensors file or hub id of a Stable Diffusion 1.x (the run's, or pixel)")
    parser.add_argument("--clip", help="folder or hub id of the CLIP its text encoder comes from, for pictures")
    parser.add_argument(
        "--reference", type=Path, help="folder of a hundred pictures or more of all kinds, for pictures with --clip"
    )
    saving = "writes the states to a .safetensors file for other tools, and draws nothing"
    parser.add_argument("--save-conditioning", type=Path, metavar="FILE", help=saving)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to draw (CUDA where there is one)")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the pictures (pictures)")
    args = parser.parse_intermixed_args()  # prompts may stand before and after options
    if args.model is None and args.again is None:
        parser.error("the following arguments are required: MODEL")
    args.prompts, args.negative = list(map(typed_text, args.prompts)), typed_text(args.negative)
    args.between = None if args.between is None else list(map(typed_text, args.between))
    return run_command(lambda: generate(args), args.out)


@dataclass(frozen=True)
class Asked:
    """What is to be drawn.

    Attributes:
        labels: one an expression.
        expressions: with their pictures in them.
        negative: what is to be avoided.
        pictures: by the names that prompts call them by.
    """

    labels: list[str]
    expressions: list[Expression]
    negative: Expression
    pictures: dict[str, Image]

    @classmethod
    def of(cls, args: argparse.Namespace) -> Asked:
        """Reads prompts and pictures.

        Raises:
            UserError: for what can't be read, and where there is nothing to draw.
        """
        prompts, negative = read_prompts(args), parse(args.negative)
        pictures = named_pictures(args.image)
        called = {name for expression in (negative, *(expression for _, expression in prompts)) for name in expression.names}
        if args.between is not None and (unused := [name for name in pictures if name not in called]):
            raise UserError(f"no prompt of --between and --negative calls <{unused[0]}>; leave that picture out.")
        prompts += [(f"<{name}>", Expression(((1.0, Named(name)),))) for name in pictures if name not in called]
        if not prompts:
            raise UserError("there is nothing to draw; give a prompt, --file, --image or --between.")
        expressions = [expression.with_pictures(pictures) for _, expression in prompts]
        return cls([text for text, _ in prompts], expressions, negative.with_pictures(pictures), pictures)

    def strip(self, count: int) -> Asked:
        """The steps from the first expression to the second, labelled by their shares."""
        shares = [k / (count - 1) for k in range(count)]
        labels = [self.labels[0], *(f"{share:.0%}" for share in shares[1:-1]), self.labels[1]]
        first, second = self.expressions
        return replace(self, labels=labels, expressions=[between(first, second, share) for share in shares])


def repeated(args: argparse.Namespace, stamp: Stamp) -> argparse.Namespace:
    """The options that draw a picture once more, but for those that are given too.

    Raises:
        UserError: for options that the picture itself decides.
    """
    if args.prompts or args.file or args.between or args.count != 1 or args.seed is not None:
        raise UserError("--again repeats one picture; leave prompts, --file, --between, --count and --seed out.")
    again = argparse.Namespace(**vars(args))
    again.model, again.sd = args.model or stamp.model, args.sd or (None if stamp.sd == "pixel" else stamp.sd)
    again.negative, again.seed = args.negative or stamp.negative, stamp.seed
    again.strength = stamp.strength if args.strength is None else args.strength
    again.guidance = stamp.guidance if args.guidance is None else args.guidance
    again.sampler_steps = stamp.steps if args.sampler_steps is None else args.sampler_steps
    again.prompts = [stamp.prompt] if stamp.to is None else [stamp.prompt, stamp.to]
    return again


def check(args: argparse.Namespace) -> None:
    """Refuses options out of range, before anything is loaded."""
    if args.count < 1:
        raise UserError(f"--count is at least 1; got {args.count}.")
    if not 0 <= args.seed < SEEDS - args.count:
        raise UserError(f"--seed is 0 or more, and below 2⁶³ for every picture; got {args.seed}.")
    if args.steps < 2:
        raise UserError(f"--steps is at least 2, the pictures of a strip; got {args.steps} (the sampler's are --sampler-steps).")
    if args.save_conditioning is not None and args.save_conditioning.suffix != ".safetensors":
        raise UserError(f"--save-conditioning is a .safetensors file; got {args.save_conditioning}.")
    if not 0 <= args.strength <= 1:
        raise UserError(f"--strength is 0 to 1; got {args.strength}.")


def load(args: argparse.Namespace) -> DeprojectorPipeline:
    """The pipeline that draws."""
    import torch  # seconds: mistakes in the options are told before

    from deproj.clip.images import open_pictures
    from deproj.pipeline import DeprojectorPipeline

    quiet_libraries()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but there is no CUDA here; leave it out, or take cpu.")
    reference = None if args.reference is None else open_pictures(args.reference)
    return DeprojectorPipeline.from_pretrained(sd_of(args), args.model, pictures=reference, device=args.device)


def generate(args: argparse.Namespace) -> None:
    """Draws what is asked for, and writes pictures and sheets."""
    stamp = None if args.again is None else Stamp.of(args.again)
    args = args if stamp is None else repeated(args, stamp)
    args.strength = 1.0 if args.strength is None else args.strength
    args.seed = 0 if args.seed is None else args.seed
    check(args)
    asked = Asked.of(args)
    check_writable(args.out if args.save_conditioning is None else args.save_conditioning.absolute().parent)
    progress = progress_here()
    with progress.phase("loading"):
        pipe = load(args)
    for hint in hints_at([*asked.labels, args.negative]):
        print(f"warning: {hint}", file=sys.stderr)
    if stamp is not None and pipe.model.weights_hash != stamp.model_hash:
        raise UserError(f"{args.model} is not the model that drew {args.again}, which had the hash {stamp.model_hash}.")
    if stamp is not None:
        use_sampler(pipe, stamp.sampler)
    true = true_states(pipe, asked, args) if args.compare else []
    if args.between is not None:
        asked = asked.strip(args.steps)
    elif stamp is not None and stamp.to is not None:
        first, second = asked.expressions
        asked = replace(asked, labels=[f"{stamp.share:.0%}"], expressions=[between(first, second, stamp.share)])
    embedded = pipe.embed(asked.expressions)
    for caution in pipe.cautions(asked.expressions, embedded):
        print(f"warning: {caution}", file=sys.stderr)
    states = pipe.blend(asked.expressions, embedded, args.strength)
    if args.save_conditioning is not None:
        save_conditioning(*pipe.with_negative(states, asked.negative, asked.pictures), asked.labels, pipe, args)
        return

    seeds = [args.seed + k for k in range(args.count)] * len(states)  # all seeds of one prompt, then the next prompt
    total = args.count * (len(states) + sum(one is not None for one in true))
    with progress.phase(f"drawing {total} picture{'s' * (total > 1)}", total * pipe.steps) as phase:
        draw = Drawing(pipe, asked.negative, asked.pictures, phase)
        drawn = draw(states.repeat_interleave(args.count, 0), seeds)
        above = reference_row(draw, asked.expressions, true, drawn, seeds) if args.compare else None
    files = pictures_of(drawn, asked.labels, seeds, pipe, args, stamp)
    untrue = [k for k, one in enumerate(asked.expressions) if args.compare and is_grey(one, true, args)]
    sheets = sheets_of(drawn, above, asked.labels, untrue, args) if args.compare or args.between else {}
    number = first_free(args.out, [*files, *sheets])
    for name, (picture, made_of) in files.items():
        save_image(picture, args.out / numbered(name, number), made_of.notes)
    for name, picture in sheets.items():
        save_image(picture, args.out / numbered(name, number))
    said = ", ".join([f"{len(drawn)} picture{'s' * (len(drawn) > 1)}", *(numbered(name, number) for name in sheets)])
    kept = f"; what was there is kept, and the new names end in ({number})" if number > 1 else ""
    print(f"Wrote {said} to {args.out}{kept}.")


def use_sampler(pipe: DeprojectorPipeline, name: str) -> None:
    """Draws with a scheduler of diffusers, by its class's name."""
    import diffusers  # see `load`

    if type(pipe.scheduler).__name__ == name:
        return
    if not hasattr(diffusers, name):
        raise UserError(f"the picture was drawn with a {name}, which this diffusers ({diffusers.__version__}) hasn't.")
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config)


def true_states(pipe: DeprojectorPipeline, asked: Asked, args: argparse.Namespace) -> list[Tensor | None]:
    """True states of each picture that will be drawn, (77, D); None where there are none. Those of a strip are mixed."""
    import torch  # see `load`

    true = [None if one.plain is None else pipe.encoder([one.plain]).states[0] for one in asked.expressions]
    if args.between is None:
        return list(true)
    first, second = true
    if first is None or second is None:
        return []
    return [torch.lerp(first, second, k / (args.steps - 1)) for k in range(args.steps)]


def pictures_of(
    drawn: Tensor, labels: list[str], seeds: list[int], pipe: DeprojectorPipeline, args: argparse.Namespace, stamp: Stamp | None
) -> dict[str, tuple[Image, Stamp]]:
    """Each picture (height, width, 3) uint8 by the name of its file, with what it was made of."""
    found, height, width = {}, drawn.shape[1], drawn.shape[2]
    of_all = Stamp(
        *("", args.negative, 0, pipe.steps, pipe.guidance, type(pipe.scheduler).__name__, args.strength),
        *(args.model, pipe.model.weights_hash, pipe.path, pipe.encoder.hash, width, height),
    )
    for k, picture in enumerate(drawn):
        number, label = k // args.count, labels[k // args.count]
        name = f"strip-{number + 1:02d}" if args.between else f"{number + 1:03d}-{slug(label)}".strip("-")
        name += f"-{seeds[k]}" if args.count > 1 else ""
        made_of = replace(of_all, prompt=label, seed=seeds[k])
        if stamp is not None:
            made_of = replace(made_of, prompt=stamp.prompt, to=stamp.to, share=stamp.share)
        if args.between:
            made_of = replace(made_of, prompt=args.between[0], to=args.between[1], share=number / (args.steps - 1))
        found[f"{name}.png"] = enlarged(fromarray(picture.numpy()), SIDE), made_of
    return found


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
    with replacing(args.save_conditioning) as temporary:
        temporary.write_bytes(save({name: value.float().cpu().contiguous() for name, value in tensors.items()}, told))
    print(f"Wrote the states of {len(states)} prompt{'s' * (len(states) > 1)} to {args.save_conditioning}.")


def first_free(folder: Path, names: list[str]) -> int:
    """The first number from 1 on with which none of the names is taken."""
    number = 1
    while any((folder / numbered(name, number)).exists() for name in names):
        number += 1
    return number


def numbered(name: str, number: int) -> str:
    """A file's name with a number, as browsers write it; without it for 1."""
    return name if number == 1 else f"{Path(name).stem} ({number}){Path(name).suffix}"


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


def reference_row(draw: Drawing, asked: list[Expression], true: list[Tensor | None], drawn: Tensor, seeds: list[int]) -> Tensor:
    """Pictures from the true states, like `drawn`; for a picture itself, it; grey where there is neither."""
    import torch  # see `load`

    row, count = torch.full_like(drawn, 232), len(drawn) // len(asked)
    for k, expression in enumerate(asked):
        if (image := lone_picture(expression)) is not None:
            row[k * count : (k + 1) * count] = fitted(image, drawn.shape[2], drawn.shape[1])
    if there := [k for k, one in enumerate(true) if one is not None]:
        places = [k * count + j for k in there for j in range(count)]
        states = torch.stack([one for one in true if one is not None]).repeat_interleave(count, 0)
        row[places] = draw(states, [seeds[place] for place in places])
    return row


def is_grey(expression: Expression, true: list[Tensor | None], args: argparse.Namespace) -> bool:
    """Whether there is nothing to draw for an expression in the row of the true states; a strip's are mixed of its ends'."""
    if args.between is not None:
        return not true
    return expression.plain is None and lone_picture(expression) is None


def lone_picture(expression: Expression) -> Image | None:
    """The picture that an expression is, if it is nothing else."""
    if len(expression.terms) == 1:
        weight, atom = expression.terms[0]
        if weight == 1 and isinstance(atom, Picture):
            return atom.image
    return None


def fitted(image: Image, width: int, height: int) -> Tensor:
    """A picture as (height, width, 3) uint8, its middle cut out."""
    import torch  # see `load`

    return torch.from_numpy(np.array(ImageOps.fit(image, (width, height))))


if __name__ == "__main__":
    sys.exit(main())
