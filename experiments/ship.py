"""Makes the models that ship with the package from trained runs: ``python experiments/ship.py [NAME...]``, by default all.

Each model goes to deproj/pixel/models, is measured there as it is stored, and gets a card and a sheet of the benchmark prompts:
true states, the model, and under `best` and `small` the article's. With ``--measure`` the models that ship stay as they are and
are measured and drawn from anew, as in a world with another U-Net.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.data.settings import DataSettings
from deproj.draw.renderer import Renderer
from deproj.draw.sheets import TRUE_STATES, save_image, sheet
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.measure.evaluator import Evaluator, evaluation_prompts
from deproj.model.base import Deprojector
from deproj.pixel import MODELS
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_checksums
from deproj.process.progress import progress_here
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.settings.compose import compose_config
from deproj.texts.benchmark import PROMPTS, seeds

ARTICLE = "eos_onward-recursive"
#: The run of each, and the command that makes it.
RUNS = {
    "all-batch": ("sweeps/ignored_states/all-batch-0", "python -m deproj.train -m experiment=ignored_states"),
    "eos_onward-batch": ("sweeps/ignored_states/eos_onward-batch-0", "python -m deproj.train -m experiment=ignored_states"),
    ARTICLE: ("sweeps/recursive_input/eos_onward-recursive-0", "python -m deproj.train -m experiment=recursive_input"),
    "small": ("runs/small", "python -m deproj.train experiment=small"),
    "best": ("runs/best", "python -m deproj.train experiment=best"),
}
#: Those that are stored in float16, and shown above the article's.
BEYOND = ("small", "best")


def export(names: list[str], out: Path, world: World) -> None:
    """Takes models over from their runs.

    Raises:
        UserError: for a run that isn't done, before anything is written.
    """
    runs = {name: RunFolder(Path(RUNS[name][0])) for name in names}
    for name, run in runs.items():
        if run.finished() is None:
            raise UserError(f"{run.path} is not trained; {RUNS[name][1]}")
    for name, run in runs.items():
        model, done = Deprojector.from_pretrained(run.path, world.encoder), run.finished()
        assert done is not None
        model.describe(run, done)
        model.save_pretrained(out / name, half=name in BEYOND)


def measure(names: list[str], out: Path, world: World, count: int = 200) -> None:
    """Measures the models that are there, and writes their cards and sheets anew."""
    data = DataSettings.of(compose_config([]))
    prompts = evaluation_prompts(data.source(), count, 0)
    evaluator = Evaluator(world.encoder, world.renderer, prompts, None, data.references, progress=progress_here())
    article = world.pictures(Deprojector.from_pretrained(out / ARTICLE, world.encoder))
    for name in names:
        model = Deprojector.from_pretrained(out / name, world.encoder)
        assert model.selection is not None
        result = evaluator(model, model.selection)
        model.provenance["results"]["evaluation"] = result.summarized()
        own = {name: world.pictures(model)}
        rows = {TRUE_STATES: world.reference} | own | ({"the article's": article} if name in BEYOND else {})
        save_image(sheet(rows, PROMPTS), out / name / "sheet.png")
        model.sheet = (out / name / "sheet.png").read_bytes()
        model.save_pretrained(out / name, half=name in BEYOND)
        told = ", ".join(f"{key} {result.values[key]:.3f}" for key in result.values if "fidelity" in key or "conditioning" in key)
        print(f"Wrote {out / name} ({told}).")
    write_checksums(out)


@dataclass(frozen=True)
class World:
    """What is drawn and measured with.

    Attributes:
        reference: pictures from the true states of the benchmark prompts.
    """

    encoder: TextEncoder
    renderer: Renderer
    reference: Tensor

    @classmethod
    def of(cls, name: str) -> World:
        sd = StableDiffusion.named(name)
        encoder = sd.encoder("cpu")
        renderer = sd.renderer(encoder, "cpu")
        return cls(encoder, renderer, renderer(encoder(PROMPTS).states, seeds()))

    def pictures(self, model: Deprojector) -> Tensor:
        """Of the benchmark prompts, (6, height, width, 3) uint8."""
        return self.renderer(model.generate(self.encoder.compose(PROMPTS)), seeds())


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RUNS)} (all)")
    parser.add_argument("--measure", action="store_true", help="only measure and draw from the models that ship")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of the models (deproj/pixel/models)")
    args = parser.parse_args()
    quiet_libraries()

    def command() -> None:
        names = args.names or list(RUNS)
        if strange := [name for name in names if name not in RUNS]:
            raise UserError(f"no model {strange[0]!r} ships; there are: {', '.join(RUNS)}.")
        world = World.of("pixel")
        if not args.measure:
            export(names, args.out, world)
        measure(names, args.out, world)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
