"""Makes the models that ship with the package from trained runs: ``python experiments/ship.py [SWEEPS]``.

The runs are seed 0 of ``experiment=ignored_states`` and ``experiment=recursive_input`` in SWEEPS (``sweeps``), with their
evaluations; each model goes to deproj/pixel/models with a card and a sheet of the benchmark prompts. With ``--measure`` the
models that ship stay as they are and are measured and drawn from anew, as in a world with another U-Net.
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
from deproj.model.store import SHIPPED
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_checksums
from deproj.process.progress import progress_here
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.settings.compose import compose_config
from deproj.texts.benchmark import PROMPTS, seeds

RUNS = {
    "all-batch": "ignored_states/all-batch-0",
    "eos_onward-batch": "ignored_states/eos_onward-batch-0",
    "eos_onward-recursive": "recursive_input/eos_onward-recursive-0",
}


def export(sweeps: Path, out: Path) -> None:
    results = {}
    for run in RUNS.values():
        if (done := RunFolder(sweeps / run).finished()) is None or not RunFolder(sweeps / run).evaluation().is_file():
            raise UserError(f"{sweeps / run} is not trained and evaluated; python -m deproj.train experiment={Path(run).parent}")
        results[run] = done
    world = World.of("pixel")
    for name, run in RUNS.items():
        model = Deprojector.from_pretrained(sweeps / run, world.encoder)
        model.describe(RunFolder(sweeps / run), results[run])
        world.write(model, out / name)
        fidelity = RunFolder(sweeps / run).read_evaluation().values["composed/fidelity"]
        print(f"Wrote {out / name} (fidelity of composed prompts {fidelity:.3f}).")
    write_checksums(out)


def measure(out: Path, count: int = 200) -> None:
    """Measures the models that are there, and writes their cards and sheets anew."""
    world, data = World.of("pixel"), DataSettings.of(compose_config([]))
    prompts = evaluation_prompts(data.source(), count, 0)
    evaluator = Evaluator(world.encoder, world.renderer, prompts, None, data.references, progress=progress_here())
    for name in RUNS:
        model = Deprojector.from_pretrained(out / name, world.encoder)
        assert model.selection is not None
        result = evaluator(model, model.selection)
        model.provenance["results"]["evaluation"] = result.summarized()
        world.write(model, out / name)
        print(f"Wrote {out / name} (fidelity of composed prompts {result.values['composed/fidelity']:.3f}).")
    write_checksums(out)


@dataclass(frozen=True)
class World:
    """What the sheets are drawn with.

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

    def write(self, model: Deprojector, folder: Path) -> None:
        """Draws a model's sheet, and writes the model with it."""
        label = ", ".join(model.provenance[group]["name"] for group in ("selection", "feed"))
        own = self.renderer(model.generate(self.encoder.compose(PROMPTS)), seeds())
        save_image(sheet({TRUE_STATES: self.reference, label: own}, PROMPTS), folder / "sheet.png")
        model.sheet = (folder / "sheet.png").read_bytes()
        model.save_pretrained(folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", nargs="?", type=Path, default=Path("sweeps"))
    parser.add_argument("--measure", action="store_true", help="only measure and draw from the models that ship")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models (deproj/pixel/models)")
    args = parser.parse_args()
    quiet_libraries()
    return run_command(lambda: measure(args.out) if args.measure else export(args.sweeps, args.out))


if __name__ == "__main__":
    sys.exit(main())
