"""Draws pictures through a deprojector: ``python -m deproj.generate MODEL "cat, maid" "<photo>, red hair" --image photo.png``.

Prompts are read as `deproj.expression` says. Pictures are called by their file's name without its ending; those that no
prompt calls are drawn by themselves.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from deproj.draw.settings import SdSettings
from deproj.draw.sheets import save_image
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.draw.stamp import Stamp, of_sheet
from deproj.expression import between, hints_at
from deproj.generate.asked import Asked, check, check_order, check_pictures, repeated
from deproj.generate.drawing import Drawing, is_grey, reference_row, true_states, use_sampler
from deproj.generate.files import first_free, numbered, pictures_of, save_conditioning, sheets_of, writable
from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.process.files import named_path
from deproj.process.letters import typed_text
from deproj.process.progress import progress_here
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.settings.inside import settings_inside

if TYPE_CHECKING:
    from deproj.pipeline import DeprojectorPipeline

__all__: list[str] = []

#: Pictures of a strip.
STEPS = 8


def generate(args: argparse.Namespace) -> None:
    """Draws what is asked for, and writes pictures and sheets."""
    stamp, typed = None if args.again is None else Stamp.of(args.again), args.model
    args = args if stamp is None else repeated(args, stamp)
    args.negative = args.negative or ""
    args.strength = 1.0 if args.strength is None else args.strength
    args.seed = 0 if args.seed is None else args.seed
    check(args)
    args.steps = args.steps or STEPS
    asked = Asked.of(args)
    sd = sd_of(args)
    if not sd.textual_inversions:
        asked = asked.resolved()
    if stamp is not None:
        check_pictures(asked.pictures, stamp)
    with writable(args.out if args.save_conditioning is None else args.save_conditioning.absolute().parent):
        draw_asked(args, asked, sd, typed, stamp)


def draw_asked(args: argparse.Namespace, asked: Asked, sd: SdSettings, typed: str | None, stamp: Stamp | None) -> None:
    """Draws what was found to be in order.

    Args:
        typed: the model as it was typed, if it was.
        stamp: of the picture that is drawn again.
    """
    progress = progress_here()
    with progress.phase("loading"):
        pipe = load(args, sd, typed)
    asked = asked.resolved(pipe.encoder.inversions)
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
    files = pictures_of(drawn, asked.labels, seeds, asked.pictures, pipe, args, stamp)
    untrue = [k for k, one in enumerate(asked.expressions) if args.compare and is_grey(one, true, args)]
    sheets = sheets_of(drawn, above, asked.labels, untrue, args) if args.compare or args.between else {}
    number = first_free(args.out, [*files, *sheets])
    for name, (picture, made_of) in files.items():
        save_image(picture, args.out / numbered(name, number), made_of.notes)
    for name, picture in sheets.items():
        save_image(picture, args.out / numbered(name, number), of_sheet([numbered(file, number) for file in files]))
    written = [numbered(name, number) for name in (*files, *sheets)]
    said = ", ".join(written if len(files) == 1 else [f"{len(files)} pictures", *written[len(files) :]])
    kept = f"; what was there is kept, and the new names end in ({number})" if number > 1 else ""
    print(f"Wrote {said} to {args.out}{kept}.")


def load(args: argparse.Namespace, sd: SdSettings, typed: str | None) -> DeprojectorPipeline:
    """The pipeline that draws."""
    import torch  # seconds: mistakes in the options are told before

    from deproj.clip.images import open_pictures
    from deproj.pipeline import DeprojectorPipeline
    from deproj.pixel import shipped

    quiet_libraries()
    check_order(args, typed, shipped())
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but there is no CUDA here; leave it out, or take cpu.")
    reference = None if args.reference is None else open_pictures(args.reference)
    return DeprojectorPipeline.from_pretrained(sd, args.model, pictures=reference, device=args.device)


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


def main() -> int:
    parser = Parser(
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
    again = "draws a picture once more, by what its PNG says; what is given beside it, as --seed, takes the place of that"
    parser.add_argument("--again", type=Path, metavar="PICTURE", help=again)
    parser.add_argument("--between", nargs=2, metavar=("A", "B"), help="a strip of pictures from one prompt to another")
    parser.add_argument("--steps", type=int, help=f"pictures in that strip ({STEPS})")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="a sheet with the pictures of the true states above; for a picture itself its middle, which CLIP sees; else grey",
    )
    parser.add_argument("--count", type=int, default=1, help="pictures of each prompt (1), from seeds one after another")
    parser.add_argument("--seed", type=int, help="of the first picture of each prompt (0)")
    parser.add_argument("--negative", metavar="PROMPT", help="what is to be avoided")
    parser.add_argument("--strength", type=float, help="from the true states (0) to the deprojected ones (1, the default)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance (the run's)")
    parser.add_argument("--sampler-steps", type=int, help="of the sampler (the run's)")
    parser.add_argument("--sd", help="folder, .safetensors file or hub id of a Stable Diffusion 1.x (the run's, or pixel)")
    parser.add_argument("--clip", help="folder or hub id of the CLIP its text encoder comes from, for pictures")
    parser.add_argument(
        "--reference", type=Path, help="folder of a hundred pictures or more of all kinds, for pictures with --clip"
    )
    saving = "writes the states to a .safetensors file for other tools, and draws nothing"
    parser.add_argument("--save-conditioning", type=named_path, metavar="FILE", help=saving)
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to draw (CUDA where there is one)")
    parser.add_argument("--out", type=named_path, default=Path("pictures"), help="folder of the pictures (pictures)")
    args = parser.parse_intermixed_args()  # prompts may stand before and after options
    if args.model is None and args.again is None:
        parser.error("the following arguments are required: MODEL")
    args.prompts = list(map(typed_text, args.prompts))
    args.negative = None if args.negative is None else typed_text(args.negative)
    args.between = None if args.between is None else list(map(typed_text, args.between))
    return run_command(lambda: generate(args), args.out)


if __name__ == "__main__":
    sys.exit(main())
