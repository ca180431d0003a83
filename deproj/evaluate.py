"""Measures runs and baselines: ``python -m deproj.evaluate RUN...`` or ``--baseline ridge --selection eos_onward``.

What is measured stands in `deproj.measure.metrics`, how in `deproj.measure.evaluator`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deproj.data.open import open_source
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_whole
from deproj.process.quiet import quiet_libraries
from deproj.settings.build import build
from deproj.settings.compose import compose_config, read_config
from deproj.settings.nodes import foreign_classes, settings
from deproj.training.run import finished

if TYPE_CHECKING:
    from deproj.measure.evaluator import Evaluator
    from deproj.selection import TokenSelection

__all__: list[str] = []


def evaluator_of(config: dict[str, Any], count: int, seed: int, file: Path | None, score_clip: str | None) -> Evaluator:
    """The evaluator of a run's settings."""
    import torch

    from deproj.clip.encoder import TextEncoder
    from deproj.draw.renderer import Renderer
    from deproj.draw.stable_diffusion import SdSettings
    from deproj.measure.evaluator import Evaluator, evaluation_prompts, prompts_of_file
    from deproj.process.hub import reach

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sd = settings(SdSettings, config["sd"], "sd")
    if score_clip is not None:
        if sd.name == "pixel":
            raise UserError("the pixel world has a reader of its own and no CLIP score; leave --score-clip out.")
        reach(score_clip, "config.json", "CLIP")
    _, source = open_source(config)
    prompts = evaluation_prompts(source, count, seed) if file is None else prompts_of_file(file, source)
    if len(prompts) < 2:
        raise UserError("measuring takes two held-out prompts or more that a comma or a space divides; name some with --prompts.")
    encoder = TextEncoder.from_pretrained(sd.path, sd.clip, device)
    renderer = None
    if device == "cuda" or sd.cpu:
        renderer = Renderer(sd, encoder.empty.states[0], device)
    else:
        print(f"Measuring states only: there is no CUDA here, and sd={sd.name} draws too slowly on a CPU.")
    return Evaluator(encoder, renderer, prompts, score_clip or sd.clip, Path(config["data"]["cache"]).parent / "worlds", seed)


def read_run(folder: Path, trusted: Sequence[str]) -> dict[str, Any]:
    """A run's settings, refused where they want classes that are neither ours nor trusted by name."""
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no run and no exported model: it has neither config.yaml nor config.json.")
    config = read_config(folder / "config.yaml")
    for group in ("selection", "sd", "data", "choices"):
        if not isinstance(config.get(group), dict):
            raise UserError(f"{folder / 'config.yaml'} has no {group}.")
    foreign = [name for name in foreign_classes(config, ("selection",)) if name not in trusted]
    if foreign:
        raise UserError(
            f"{folder}/config.yaml wants a class that is none of ours; if you trust it, name it: --trust {foreign[0]}."
        )
    return config


def exported(run: Path) -> bool:
    """Whether it is an exported model, by its folder or its name, and no run, which has settings of its own."""
    return not run.is_dir() or ((run / "config.json").is_file() and not (run / "config.yaml").is_file())


def config_of_exported(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that exported models are measured by: the pixel world's, or of the Stable Diffusion that is named."""
    if args.sd is None:
        return compose_config([])
    config = compose_config(["sd=sd15"])
    config["sd"] |= {"path": args.sd, "clip": args.clip}
    config["data"]["prompts"] = args.captions
    return config


def table(results: dict[str, dict[str, Any]]) -> str:
    """The main measures as text."""
    columns = ["conditioning error", "fidelity", "clip score", "noise", "likeness", "mse words", "mse eos", "mse padding"]
    shown = [c for c in columns if any(c in result["single"] for result in results.values())]
    lines = [["", "prompts", *shown]]
    for name, result in results.items():
        for kind in ("single", "composed"):
            cells = []
            for column in shown:
                entry = result[kind].get(column)
                value, low, high = (entry[k] if entry else None for k in ("value", "low", "high"))
                mark = "" if not column.startswith("mse ") or result["trained"][column[4:]] else "*"
                between = "" if low is None or high is None else f" ({low:.3f}, {high:.3f})"
                cells.append("" if value is None else f"{value:.3f}{mark}{between}")
            lines.append([name, f"{len(result['prompts'])} {kind}", *cells])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if any("*" in cell for line in lines for cell in line[2:]):
        rows.append("* a region that the selection doesn't train")
    return "\n".join(rows)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deproj.evaluate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="RUN",
        help="runs, and models by folder, hub id or short name; each folder gets an evaluation.json",
    )
    parser.add_argument(
        "--sd", help="folder or hub id of the Stable Diffusion 1.x that models are for (pixel); a run has its own"
    )
    parser.add_argument("--clip", help="folder or hub id of the CLIP that its text encoder comes from")
    parser.add_argument(
        "--captions", help="with --sd, the data.prompts that the models were trained on: the held-out ones are used"
    )
    parser.add_argument("--baseline", choices=("mean", "broadcast", "ridge", "nearest"), help="a baseline instead of a model")
    parser.add_argument("--selection", help="of the baseline (default: the run's, or eos_onward)")
    parser.add_argument("--count", type=int, default=200, help="single and composed prompts each (200)")
    parser.add_argument("--prompts", type=Path, help="a text file of prompts with commas, instead of held-out ones")
    parser.add_argument("--seed", type=int, default=0, help="of the prompts and of the pictures")
    parser.add_argument(
        "--compose-mean", action="store_true", help="composed prompts as the mean of their parts (evaluation-mean.json)"
    )
    parser.add_argument("--score-clip", help="folder or hub id of the CLIP of the CLIP score (default: sd.clip)")
    parser.add_argument("--trust", action="append", default=[], metavar="CLASS", help="a selection of your own, by its full name")
    parser.add_argument("--out", type=Path, help="folder of a baseline's results (runs/baseline-NAME-SELECTION)")
    args = parser.parse_args()

    def command() -> None:
        if args.count < 2 or args.seed < 0:
            raise UserError(f"--count is at least 2 and --seed at least 0; got {args.count} and {args.seed}.")
        if args.baseline and (len(args.runs) > 1 or args.compose_mean):
            raise UserError("a baseline takes its settings from one run at most, and no --compose-mean.")
        if not args.runs and not args.baseline:
            raise UserError("name one run or more, or --baseline.")
        of_sd = [f"--{name}" for name in ("sd", "clip", "captions") if getattr(args, name) is not None]
        if of_sd and (args.baseline or not all(map(exported, args.runs))):
            raise UserError(f"{of_sd[0]} is for models without a run; a run has its own.")
        if of_sd and (args.sd is None or args.captions is None):
            raise UserError("models of another Stable Diffusion take both --sd and --captions, what they were trained on.")
        if args.baseline:
            evaluate_baseline(args)
            return
        if args.selection or args.out:
            raise UserError("--selection and --out are for a --baseline; a run has its own.")
        evaluate_runs(args)

    return run_command(command)


def evaluate_runs(args: argparse.Namespace) -> None:
    from deproj.measure.results import describe
    from deproj.model.base import Deprojector
    from deproj.model.store import locate_model
    from deproj.pipeline import selection_of
    from deproj.selection import TokenSelection

    quiet_libraries()
    for run in args.runs:
        if not run.is_dir():
            locate_model(run)  # one that isn't there is told before minutes of measuring
    configs = {run: config_of_exported(args) if exported(run) else read_run(run, args.trust) for run in args.runs}
    for run in configs:
        if not exported(run) and not (run / "deprojector").is_dir():
            raise UserError(f"{run} has no deprojector: its training isn't done.")
    results, evaluators = {}, {}
    for run, config in configs.items():
        start = time.monotonic()
        key = json.dumps([config["sd"], config["data"]["prompts"], config["data"]["column"]])
        if key not in evaluators:
            evaluators[key] = evaluator_of(config, args.count, args.seed, args.prompts, args.score_clip)
            evaluators[key].compose_mean = args.compose_mean
        evaluator = evaluators[key]
        model = Deprojector.from_pretrained(run, evaluator.encoder).to(evaluator.encoder.model.device)
        selection = selection_of(model) if exported(run) else build(config["selection"], TokenSelection, "selection")
        if selection is None:
            raise UserError(f"{run} doesn't say in which order its states stand; measure the run that it comes from.")
        result = evaluator(model, selection)
        folder = run if run.is_dir() else Path("runs") / f"evaluation-{run.as_posix().replace('/', '-')}"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / ("evaluation-mean.json" if args.compose_mean else "evaluation.json")
        write_whole(path, json.dumps(result) + "\n")
        card = run.is_dir() and not args.compose_mean  # that of a model by name is its owner's
        if card and exported(run):
            told = model.provenance.setdefault("results", {})
            told["evaluation"] = {key: result[key] for key in ("single", "composed", "trained")}
            model.save_pretrained(run)  # its card tells these numbers
        elif card and (done := finished(run)):
            describe(model, run, done)
            model.save_pretrained(run / "deprojector")
        results[run.as_posix()] = result
        print(f"Wrote {path} ({time.monotonic() - start:.0f} s).")
    print(table(results))


def evaluate_baseline(args: argparse.Namespace) -> None:
    from deproj.data.batches import SamplesModule
    from deproj.measure.baselines import BASELINES
    from deproj.selection import TokenSelection

    quiet_libraries()
    overrides = [f"selection={args.selection}"] if args.selection else []
    if args.runs:
        config = read_run(args.runs[0], args.trust)
        if overrides:
            chosen = compose_config(overrides)
            config["selection"], config["choices"]["selection"] = chosen["selection"], chosen["choices"]["selection"]
    else:
        config = compose_config(overrides)
    name = config["choices"]["selection"]
    if name == "words_eos":
        raise UserError("the states of words_eos stand in the order of all, so its baselines are those of --selection all.")
    evaluator = evaluator_of(config, args.count, args.seed, args.prompts, args.score_clip)
    selection: TokenSelection = build(config["selection"], TokenSelection, "selection")
    data = SamplesModule(*open_source(config), evaluator.encoder, selection, seed=0)
    data.setup()
    assert data.train is not None
    baseline = BASELINES[args.baseline](data.train, selection)
    result = evaluator(baseline, selection)
    folder = args.out or Path("runs") / f"baseline-{args.baseline}-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    about = {"baseline": args.baseline, "choices": {"selection": name}, "selection": config["selection"], "sd": config["sd"]}
    write_whole(folder / "baseline.json", json.dumps(about | {"data": config["data"]}, indent=2) + "\n")
    write_whole(folder / "evaluation.json", json.dumps(result) + "\n")
    print(f"Wrote {folder / 'evaluation.json'}.")
    print(table({f"{args.baseline}, {name}": result}))


if __name__ == "__main__":
    sys.exit(main())
