"""Makes the models that ship with the package from trained runs: ``python experiments/ship.py [SWEEPS]``.

The runs are seed 0 of ``experiment=ignored_states`` and ``experiment=recursive_input`` in SWEEPS (``sweeps``), with their
evaluations; each model goes to deproj/pixel/models with a card and a sheet of the benchmark prompts.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from deproj.draw.sheets import TRUE_STATES, save_image, sheet
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.model.base import Deprojector
from deproj.model.store import SHIPPED
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_checksums
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
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
    sd = StableDiffusion.named("pixel")
    encoder = sd.encoder("cpu")
    renderer = sd.renderer(encoder, "cpu")
    reference, embedding = renderer(encoder(PROMPTS).states, seeds()), encoder.compose(PROMPTS)
    for name, run in RUNS.items():
        model = Deprojector.from_pretrained(sweeps / run, encoder)
        label = ", ".join(model.provenance[group]["name"] for group in ("selection", "feed"))
        pictures = sheet({TRUE_STATES: reference, label: renderer(model.generate(embedding), seeds())}, PROMPTS)
        save_image(pictures, out / name / "sheet.png")
        model.sheet = (out / name / "sheet.png").read_bytes()
        model.describe(RunFolder(sweeps / run), results[run])
        model.save_pretrained(out / name)
        fidelity = RunFolder(sweeps / run).read_evaluation().values["composed/fidelity"]
        print(f"Wrote {out / name} (fidelity of composed prompts {fidelity:.3f}).")
    write_checksums(out)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sweeps", nargs="?", type=Path, default=Path("sweeps"))
    parser.add_argument("--out", type=Path, default=SHIPPED, help="folder of the models (deproj/pixel/models)")
    args = parser.parse_args()
    quiet_libraries()
    return run_command(lambda: export(args.sweeps, args.out))


if __name__ == "__main__":
    sys.exit(main())
