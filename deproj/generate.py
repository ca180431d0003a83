"""Draws pictures through a deprojector: ``python -m deproj.generate MODEL "cat, maid" "<photo>, red hair" --image photo.png``.

Prompts are read as `deproj.expression` says. Pictures are called by their file's name without its ending; those that no
prompt calls are drawn by themselves.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deproj.expression import Expression, Named, between, parse
from deproj.process.errors import UserError, run_command

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from deproj.draw.stable_diffusion import SdSettings
    from deproj.pipeline import DeprojectorPipeline

__all__: list[str] = []

#: Seeds are below this.
SEEDS = 2**63
#: Pictures smaller than this are enlarged when they are written, without smoothing.
SIDE = 256
#: Pictures side by side on a sheet; the rest get sheets of their own.
COLUMNS = 8


def read_prompts(args: argparse.Namespace) -> list[tuple[str, Expression]]:
    """What is to be drawn: labels and expressions."""
    texts = list(args.prompts)
    if args.file is not None:
        try:
            texts += [line.strip() for line in args.file.read_text("utf-8-sig").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{args.file} cannot be read: {error}.") from None
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
    from deproj.clip.images import open_picture

    pictures: dict[str, Image] = {}
    for path in paths:
        if path.stem in pictures:
            raise UserError(f"two pictures are named {path.stem}; rename one of them.")
        pictures[path.stem] = open_picture(path)
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
    from dataclasses import replace

    from deproj.draw.stable_diffusion import SdSettings
    from deproj.pipeline import sd_settings
    from deproj.settings.compose import read_config
    from deproj.settings.nodes import settings

    config = Path(args.model) / "config.yaml"
    if args.sd is None and config.is_file():
        node = read_config(config).get("sd")
        if not isinstance(node, dict):
            raise UserError(f"{config} has no sd; name the pipeline with --sd.")
        chosen = settings(SdSettings, node, "sd")
    else:
        chosen = sd_settings(args.sd or "pixel", args.clip)
    changed = {"clip": args.clip, "steps": args.sampler_steps, "guidance": args.guidance}
    return replace(chosen, **{name: value for name, value in changed.items() if value is not None})


def slug(text: str) -> str:
    """A text as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40].strip("-")


class Drawing:
    """Draws states in chunks that fit, with one progress bar for all."""

    def __init__(self, pipe: DeprojectorPipeline, negative: Expression, pictures: dict[str, Image], total: int) -> None:
        from tqdm import tqdm

        self.pipe, self.negative, self.pictures = pipe, negative, pictures
        self.bar = tqdm(total=total * pipe.steps, desc="drawing", unit="step", disable=None, leave=False)

    def __call__(self, states: Tensor, seeds: list[int]) -> Tensor:
        """Pictures (B, height, width, 3) uint8 of states (B, 77, D)."""
        import torch

        drawn = []
        for rows in torch.arange(len(states)).split(self.pipe.chunk):
            positive, negative = self.pipe.with_negative(states[rows], self.negative, self.pictures)
            images = self.pipe.sd(
                prompt_embeds=positive,
                negative_prompt_embeds=negative,
                guidance_scale=self.pipe.guidance,
                num_inference_steps=self.pipe.steps,
                generator=[torch.Generator().manual_seed(seeds[row]) for row in rows.tolist()],
                output_type="pt",
                callback_on_step_end=self.step,
            ).images
            drawn.append((images.float().permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().cpu())
        return torch.cat(drawn)

    def step(self, sd: Any, number: int, time: Any, seen: dict[str, Any]) -> dict[str, Any]:
        self.bar.update(len(seen["latents"]))
        return seen


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m deproj.generate",
        description=(__doc__ or "").splitlines()[0],
        epilog="Prompts that begin with - stand after --, and a negative one behind =: --negative=-cat -- '-red hair'.",
    )
    parser.add_argument("model", metavar="MODEL", help="a run's folder, an exported model's, or a hub id")
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="as in 'cat, maid' or '1girl, red hair:1.2, -black skirt'")
    parser.add_argument("--file", type=Path, help="a text file of prompts, a line each")
    parser.add_argument(
        "--image", action="append", default=[], type=Path, metavar="PICTURE", help="photo.png is <photo> in prompts"
    )
    parser.add_argument("--between", nargs=2, metavar=("A", "B"), help="a strip of pictures from one prompt to another")
    parser.add_argument("--steps", type=int, default=8, help="pictures in that strip (8)")
    parser.add_argument(
        "--compare",
        action="store_true",
        help="a sheet with the pictures of the true states above; for a picture itself its middle, which CLIP sees; else grey",
    )
    parser.add_argument("--count", type=int, default=1, help="pictures of each prompt (1), from seeds one after another")
    parser.add_argument("--seed", type=int, default=0, help="of the first picture of each prompt (0)")
    parser.add_argument("--negative", default="", metavar="PROMPT", help="what is to be avoided")
    parser.add_argument("--strength", type=float, default=1.0, help="from the true states (0) to the deprojected ones (1)")
    parser.add_argument("--guidance", type=float, help="classifier-free guidance (the run's)")
    parser.add_argument("--sampler-steps", type=int, help="of the sampler (the run's)")
    parser.add_argument("--sd", help="folder or hub id of a Stable Diffusion 1.x (the run's, or pixel)")
    parser.add_argument("--clip", help="folder or hub id of the CLIP its text encoder comes from, for pictures")
    parser.add_argument(
        "--reference", type=Path, help="folder of a hundred pictures or more of all kinds, for pictures with --clip"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to draw (CUDA where there is one)")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="folder of the pictures (pictures)")
    args = parser.parse_intermixed_args()  # prompts may stand before and after options
    return run_command(lambda: generate(args))


def generate(args: argparse.Namespace) -> None:
    if args.count < 1:
        raise UserError(f"--count is at least 1; got {args.count}.")
    if not 0 <= args.seed < SEEDS - args.count:
        raise UserError(f"--seed is 0 or more, and below 2⁶³ for every picture; got {args.seed}.")
    if args.steps < 2:
        raise UserError(f"--steps is at least 2, the pictures of a strip; got {args.steps} (the sampler's are --sampler-steps).")
    if not 0 <= args.strength <= 1:
        raise UserError(f"--strength is 0 to 1; got {args.strength}.")
    prompts, negative = read_prompts(args), parse(args.negative)
    pictures = named_pictures(args.image)
    called = {name for expression in (negative, *(expression for _, expression in prompts)) for name in expression.names}
    if args.between is not None and (unused := [name for name in pictures if name not in called]):
        raise UserError(f"no prompt of --between and --negative calls <{unused[0]}>; leave that picture out.")
    prompts += [(f"<{name}>", Expression(((1.0, Named(name)),))) for name in pictures if name not in called]
    if not prompts:
        raise UserError("there is nothing to draw; give a prompt, --file, --image or --between.")
    labels = [text for text, _ in prompts]
    asked = [expression.with_pictures(pictures) for _, expression in prompts]
    negative = negative.with_pictures(pictures)
    check_writable(args.out)

    import torch

    from deproj.clip.images import open_pictures
    from deproj.draw.sheets import save_image
    from deproj.pipeline import DeprojectorPipeline
    from deproj.process.quiet import quiet_libraries

    quiet_libraries()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but there is no CUDA here; leave it out, or take cpu.")
    reference = None if args.reference is None else open_pictures(args.reference)
    pipe = DeprojectorPipeline.from_pretrained(sd_of(args), args.model, pictures=reference, device=args.device)
    true = [None if one.plain is None else pipe.encoder([one.plain]).states[0] for one in asked] if args.compare else []
    if args.between is not None:
        shares = torch.linspace(0, 1, args.steps).tolist()
        asked = [between(asked[0], asked[1], share) for share in shares]
        ends = [one for one in true if one is not None]
        true = [torch.lerp(ends[0], ends[1], share) for share in shares] if len(ends) == 2 else []
        labels = [labels[0], *(f"{share:.0%}" for share in shares[1:-1]), labels[1]]
    embedded = pipe.embed(asked)
    for caution in pipe.cautions(asked, embedded):
        print(f"warning: {caution}", file=sys.stderr)
    states = pipe.blend(asked, embedded, args.strength)

    # all seeds of one prompt, then the next prompt
    seeds = [args.seed + k for k in range(args.count)] * len(asked)
    draw = Drawing(pipe, negative, pictures, args.count * (len(asked) + sum(one is not None for one in true)))
    drawn = draw(states.repeat_interleave(args.count, 0), seeds)
    above = reference_row(draw, asked, true, drawn, seeds) if args.compare else None
    draw.bar.close()
    for k, picture in enumerate(drawn):
        number, label = k // args.count, labels[k // args.count]
        name = f"strip-{number + 1:02d}" if args.between else f"{number + 1:03d}-{slug(label)}".strip("-")
        name += f"-{seeds[k]}" if args.count > 1 else ""
        about = {"prompt": label, "seed": str(seeds[k]), "model": args.model}
        if args.between:
            about |= {"prompt": " to ".join(args.between), "share": f"{shares[number]:g}"}
        save_image(enlarged(picture), args.out / f"{name}.png", about)
    said = f"Wrote {len(drawn)} picture{'s' * (len(drawn) > 1)}"
    if args.compare or args.between:
        name = "strip" if args.between else "sheet"
        for part in torch.arange(len(drawn)).split(COLUMNS):
            file = f"{name}.png" if part[0] == 0 else f"{name}-{int(part[0]) // COLUMNS + 1}.png"
            save_image(sheet_of(drawn, above, part, labels, args), args.out / file)
            said += f", {file}"
    print(f"{said} to {args.out}.")


def sheet_of(drawn: Tensor, above: Tensor | None, part: Tensor, labels: list[str], args: argparse.Namespace) -> Image:
    """Some of the pictures side by side, with the row of the true states where there is one."""
    from deproj.draw.sheets import sheet

    rows = {} if above is None else {"no deprojector" + (", states mixed" if args.between else ""): above[part]}
    own = "deprojected" if args.strength == 1 else f"deprojected, strength {args.strength:g}"
    return sheet(rows | {own: drawn[part]}, [labels[k // args.count] for k in part.tolist()], halves=False)


def reference_row(draw: Drawing, asked: list[Expression], true: list[Tensor | None], drawn: Tensor, seeds: list[int]) -> Tensor:
    """Pictures from the true states, like `drawn`; for a picture itself, it; grey where there is neither."""
    import torch

    row, count = torch.full_like(drawn, 232), len(drawn) // len(asked)
    for k, expression in enumerate(asked):
        if (image := alone(expression)) is not None:
            row[k * count : (k + 1) * count] = fitted(image, drawn.shape[2], drawn.shape[1])
    if there := [k for k, one in enumerate(true) if one is not None]:
        places = [k * count + j for k in there for j in range(count)]
        states = torch.stack([one for one in true if one is not None]).repeat_interleave(count, 0)
        row[places] = draw(states, [seeds[place] for place in places])
    return row


def alone(expression: Expression) -> Image | None:
    """The picture that an expression is, if it is nothing else."""
    from deproj.expression import Picture

    if len(expression.terms) == 1:
        weight, atom = expression.terms[0]
        if weight == 1 and isinstance(atom, Picture):
            return atom.image
    return None


def fitted(image: Image, width: int, height: int) -> Tensor:
    """A picture as (height, width, 3) uint8, its middle cut out."""
    import numpy as np
    import torch
    from PIL import ImageOps

    return torch.from_numpy(np.array(ImageOps.fit(image, (width, height))))


def enlarged(picture: Tensor) -> Image:
    """A picture (height, width, 3) uint8, small ones `SIDE` high at least."""
    from PIL import Image

    image = Image.fromarray(picture.numpy())
    times = -(-SIDE // image.height)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST) if times > 1 else image


if __name__ == "__main__":
    sys.exit(main())
