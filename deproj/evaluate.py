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

from deproj.data.settings import DataSettings
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.process.files import named_path
from deproj.process.progress import Progress, progress_here
from deproj.process.quiet import quiet_libraries
from deproj.process.system import quoted
from deproj.runs.folder import RunFolder
from deproj.runs.listing import listed
from deproj.runs.records import KINDS, BaselineRecord, Evaluation, ModelRecord, told
from deproj.settings.build import build
from deproj.settings.compose import compose_config
from deproj.settings.messages import typed
from deproj.settings.nodes import foreign_classes

if TYPE_CHECKING:
    from deproj.measure.evaluator import Evaluator
    from deproj.selection import TokenSelection

__all__: list[str] = []

COLUMNS = (
    *("conditioning_error", "fidelity", "clip_score", "noise", "two_colours", "likeness"),
    *("mse_words", "mse_eos", "mse_padding"),
)


# --- What is measured, and on what ----------------------------------------------------------------


def evaluator_of(
    config: dict[str, Any], count: int, seed: int, file: Path | None, score_clip: str | None, progress: Progress
) -> Evaluator:
    """The evaluator of a run's settings."""
    # transformers and diffusers take seconds to import: mistakes in the options are told before
    import torch

    from deproj.data.seen import TokensSeen
    from deproj.measure.evaluator import Evaluator, evaluation_prompts, prompts_of_file
    from deproj.process.hub import reach

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sd = StableDiffusion.of(config)
    if score_clip is not None:
        if sd.miniature:
            raise UserError("the pixel world has a reader of its own and no CLIP score; leave --score-clip out.")
        reach(score_clip, "config.json", "CLIP")
    data = DataSettings.of(config)
    opened = data.source()  # what can't be read is told before the encoder is loaded
    encoder = sd.encoder(device)
    source = opened.seen_by(TokensSeen(encoder))
    prompts = evaluation_prompts(source, count, seed) if file is None else prompts_of_file(file, source)
    if len(prompts) < 2:
        raise UserError("measuring takes two held-out prompts or more that a comma or a space divides; name some with --prompts.")
    renderer = sd.renderer(encoder, device) if sd.quick_on(device) else None
    if renderer is None:
        print(f"Measuring states only: there is no CUDA here, and sd={sd.settings.name} draws too slowly on a CPU.")
    return Evaluator(encoder, renderer, prompts, score_clip or sd.settings.clip, data.references, seed, progress=progress)


def read_run(run: RunFolder, trusted: Sequence[str]) -> dict[str, Any]:
    """A run's settings, refused where they want classes that are neither ours nor trusted by name."""
    if not run.is_run:
        raise UserError(f"{run.path} is no run and no exported model: it has neither config.yaml nor config.json.")
    config = run.read_config()
    for group in ("selection", "sd", "data", "choices"):
        if not isinstance(config.get(group), dict):
            raise UserError(f"{run.config} has no {group}.")
    foreign = [name for name in foreign_classes(config, ("selection",)) if name not in trusted]
    if foreign:
        raise UserError(f"{run.config} wants a class that is none of ours; if you trust it, name it: --trust {foreign[0]}.")
    return config


def exported(path: Path) -> bool:
    """Whether it is an exported model, by its folder or its name, and no run, which has settings of its own."""
    return not path.is_dir() or ((path / "config.json").is_file() and not RunFolder(path).is_run)


def config_of_exported(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """The settings that an exported model is measured by: the pixel world's, or of the Stable Diffusion that is named."""
    from deproj.model.base import Deprojector  # imports torch: mistakes in the options are told before

    config = compose_config([] if args.sd is None else ["sd=sd15"])
    config["sd"]["clip_skip"] = Deprojector.from_pretrained(path).clip_skip
    if args.sd is not None:
        config["sd"] |= {"path": args.sd, "clip": args.clip}
        config["data"]["prompts"] = args.captions
    return config


# --- Measuring ------------------------------------------------------------------------------------


def evaluate_runs(args: argparse.Namespace, progress: Progress) -> None:
    """Measures runs and exported models, each written beside it."""
    from deproj.model.store import locate_model  # imports torch: mistakes in the options are told before

    quiet_libraries()
    args.runs = list({run.resolve(): run for path in args.runs for run in runs_of(path)}.values())
    for path in args.runs:
        if not path.is_dir():
            locate_model(path)  # one that isn't there is told before minutes of measuring
    configs = {
        path: config_of_exported(args, path) if exported(path) else read_run(RunFolder(path), args.trust) for path in args.runs
    }
    for path in configs:
        if not exported(path) and not RunFolder(path).model.is_dir():
            if RunFolder(path).finished() is not None:
                raise UserError(f"{path} has no deprojector/ any more; copy it back, or train the run anew.")
            further = f"python -m deproj.train {typed('resume', path.as_posix())}"
            raise UserError(f"{path} has no deprojector: its training isn't done. To go on with it: {further}")
    for path in args.runs:
        refuse_fewer(folder_of(path), args)
    results: dict[str, Evaluation] = {}
    evaluators: dict[str, Evaluator] = {}
    for path, config in configs.items():
        key = json.dumps([config["sd"], *(config["data"].get(k) for k in ("prompts", "column", "marks"))])
        if key not in evaluators:
            evaluators[key] = evaluator_of(config, args.count, args.seed, args.prompts, args.score_clip, progress)
            evaluators[key].compose_mean = args.compose_mean
        results[path.as_posix()] = evaluate_one(path, config, evaluators[key])
    print(table(results))


def runs_of(path: Path) -> list[Path]:
    """What a path stands for: itself, or where it is the folder of a sweep or of runs, those of them that are done.

    Raises:
        UserError: for a folder of runs of which none is done.
    """
    if not path.is_dir() or RunFolder(path).is_run or exported(path):
        return [path]
    if not (rows := listed([path])):
        return [path]  # which is told where it is read
    done = [row.run.path for row in rows if row.state == "done"]
    if not done:
        raise UserError(f"none of the {len(rows)} runs in {path} is done; python -m deproj.runs {quoted(str(path))} lists them.")
    for row in rows:
        if row.state != "done":
            print(f"left out: {row.run.path}: {row.state}")
    return done


def folder_of(path: Path) -> RunFolder:
    """Where the measures of a run or a model go: beside it, or for a model by name into ``runs/``."""
    return RunFolder(path if path.is_dir() else Path("runs") / f"evaluation-{path.as_posix().replace('/', '-')}")


def refuse_fewer(out: RunFolder, args: argparse.Namespace) -> None:
    """Refuses to replace measures by those on fewer prompts, unless it is asked for."""
    try:
        before = len(out.read_evaluation(args.compose_mean).prompts)
    except (OSError, UserError):  # none, or a broken one
        return
    if args.prompts is None and args.count < before and not args.overwrite:
        raise UserError(
            f"{out.evaluation(args.compose_mean)} is of {before} prompts, and --count {args.count} would replace it; "
            "leave --count out, or add --overwrite."
        )


def evaluate_one(path: Path, config: dict[str, Any], evaluator: Evaluator) -> Evaluation:
    """Measures a run or an exported model, and writes its measures and its card."""
    from deproj.model.base import Deprojector  # imports torch: see above
    from deproj.selection import TokenSelection

    start = time.monotonic()
    model = Deprojector.from_pretrained(path, evaluator.encoder).to(evaluator.encoder.model.device)
    selection = model.selection if exported(path) else build(config["selection"], TokenSelection, "selection")
    if selection is None:
        raise UserError(f"{path} doesn't say in which order its states stand; measure the run that it comes from.")
    result = evaluator(model, selection)
    out = folder_of(path)
    written = out.evaluation(evaluator.compose_mean)
    if exported(path):
        out.write(out.measured, ModelRecord("." if path.is_dir() else path.as_posix(), {k: config[k] for k in ("sd", "data")}))
    out.write(written, result)
    if path.is_dir() and not evaluator.compose_mean:  # the card of a model by name is its owner's
        write_card(model, path, result)
    print(f"Wrote {written} ({time.monotonic() - start:.0f} s).")
    return result


def write_card(model: Any, path: Path, result: Evaluation) -> None:
    """Stores new measures in a model's card."""
    run = RunFolder(path)
    if exported(path):
        model.provenance.setdefault("results", {})["evaluation"] = result.summarized()
        model.save_pretrained(path)
    elif done := run.finished():
        model.describe(run, done)
        model.save_pretrained(run.model)


def evaluate_baseline(args: argparse.Namespace, progress: Progress) -> None:
    """Fits a baseline and measures it."""
    from deproj.data.batches import SamplesModule  # imports torch: see above
    from deproj.measure.baselines import BASELINES
    from deproj.selection import TokenSelection

    quiet_libraries()
    overrides = [f"selection={args.selection}"] if args.selection else []
    if args.runs:
        config = read_run(RunFolder(args.runs[0]), args.trust)
        if overrides:
            chosen = compose_config(overrides)
            config["selection"], config["choices"]["selection"] = chosen["selection"], chosen["choices"]["selection"]
    else:
        config = compose_config(overrides)
    name = config["choices"]["selection"]
    if name == "words_eos":
        raise UserError("the states of words_eos stand in the order of all, so its baselines are those of --selection all.")
    evaluator = evaluator_of(config, args.count, args.seed, args.prompts, args.score_clip, progress)
    selection: TokenSelection = build(config["selection"], TokenSelection, "selection")
    settings_of_data = DataSettings.of(config)
    data = SamplesModule(settings_of_data, settings_of_data.source(), evaluator.encoder, selection, seed=0)
    data.setup(progress=progress)
    assert data.train is not None
    with progress.phase(f"fitting {args.baseline}"):
        baseline = BASELINES[args.baseline](data.train, selection, progress)
    result = evaluator(baseline, selection)
    out = RunFolder(args.out or Path("runs") / f"baseline-{args.baseline}-{name}")
    kept = {"choices": {"selection": name}} | {group: config[group] for group in ("selection", "sd", "data")}
    out.write(out.baseline, BaselineRecord(args.baseline, kept))
    out.write(out.evaluation(), result)
    print(f"Wrote {out.evaluation()}.")
    print(table({f"{args.baseline}, {name}": result}))


def table(results: dict[str, Evaluation]) -> str:
    """The main measures as text."""
    shown = [c for c in COLUMNS if any(c in result.single.summaries for result in results.values())]
    lines = [["", "prompts", *map(told, shown)]]
    for name, result in results.items():
        for kind in KINDS:
            lines.append([name, f"{len(result.prompts)} {kind}", *(cell(result, kind, column) for column in shown)])
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if any("*" in text for line in lines for text in line[2:]):
        rows.append("* a region that the selection doesn't train")
    return "\n".join(rows)


def cell(result: Evaluation, kind: str, measure: str) -> str:
    """A measure with its interval, as text."""
    summary = result.of(kind).summaries.get(measure)
    if summary is None or summary.value is None:
        return ""
    mark = "" if not measure.startswith("mse_") or result.trained[measure[4:]] else "*"
    between = "" if summary.low is None or summary.high is None else f" ({summary.low:.3f}, {summary.high:.3f})"
    return f"{summary.value:.3f}{mark}{between}"


# --- The command ----------------------------------------------------------------------------------


def options() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m deproj.evaluate", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    runs = "runs, sweeps, and models by folder, hub id or short name; each run's folder gets an evaluation.json"
    add("runs", nargs="*", type=Path, metavar="RUN", help=runs)
    add(
        "--sd",
        help="folder, .safetensors file or hub id of the Stable Diffusion 1.x that models are for (pixel); a run has its own",
    )
    add("--clip", help="folder or hub id of the CLIP that its text encoder comes from")
    add("--captions", help="with --sd, the data.prompts that the models were trained on: the held-out ones are used")
    add("--baseline", choices=("mean", "broadcast", "ridge", "nearest"), help="a baseline instead of a model")
    add("--selection", help="of the baseline (default: the run's, or eos_onward)")
    add("--count", type=int, default=200, help="single and composed prompts each (200)")
    add("--prompts", type=Path, help="a file of prompts with commas, instead of held-out ones")
    add("--seed", type=int, default=0, help="of the prompts and of the pictures")
    mean = "composed prompts as the mean of their parts (evaluation-mean.json)"
    add("--compose-mean", action="store_true", help=mean)
    add("--score-clip", help="folder or hub id of the CLIP of the CLIP score (default: sd.clip)")
    add("--overwrite", action="store_true", help="replace measures on more prompts than --count")
    add("--trust", action="append", default=[], metavar="CLASS", help="a selection of your own, by its full name")
    add("--out", type=named_path, help="folder of a baseline's results (runs/baseline-NAME-SELECTION)")
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuses options that don't go together."""
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
    if (args.selection or args.out) and not args.baseline:
        raise UserError("--selection and --out are for a --baseline; a run has its own.")


def main() -> int:
    args = options().parse_args()

    def command() -> None:
        check(args)
        progress = progress_here()
        with progress.phase("loading"):
            (evaluate_baseline if args.baseline else evaluate_runs)(args, progress)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
