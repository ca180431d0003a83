"""How fast it is, and how near the machine's limit: ``python -m deproj.bench``.

Everything is measured side by side in one process: round after round, every case once. A case's ratio to the plain loop
is taken within each round, so that a machine that slows down slows both. What a case could be at best is the rate of
2048 x 2048 x 2048 matrix products, measured in the same rounds: its share of that is its useful arithmetic (products
alone) over its time, over the rate.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.process.files import named_path, write_whole
from deproj.process.progress import Progress, progress_here

if TYPE_CHECKING:
    from deproj.speed.cases import Case

__all__: list[str] = []

LEGEND = """
Medians of {rounds} rounds, everything in turn; spread: (largest - smallest) / median. In brackets the range of the ratios
of single rounds: where it holds 1, the difference is noise. words_eos and its reverse are trained in batches of like
lengths, of which five stand for all; the plain loop and the other peers compute all 76 places."""


def options() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m deproj.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="under a minute: less of the real size, no memory")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="only what has this in its name, such as 'train pixel'; no memory"
    )
    parser.add_argument("--rounds", type=int, help="times that everything is measured (default 5, quick 2)")
    parser.add_argument(
        "--growth",
        action="store_true",
        help="how seconds and memory grow with what is asked for, on the CPU; 2 minutes, with --out alone",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="where to measure (CUDA where there is one)")
    parser.add_argument("--out", type=named_path, default=Path("bench.json"), help="where the same goes as JSON (bench.json)")
    return parser


def chosen(every: list[Case], text: str) -> list[Case]:
    """The cases that have a text in their names, with those that their ratios and shares are taken to.

    Raises:
        UserError: where none has it.
    """
    wanted = [case for case in every if text in case.name]
    if not wanted:
        raise UserError(f"--only {text!r} is in no name; one is {every[-1].name!r}.")
    needed = {case.name for case in wanted} | {case.against for case in wanted}
    return [case for case in every if case.name in needed or case.name.startswith("product ")]


def grow(out: Path, progress: Progress) -> None:
    """Measures growth on the CPU, and writes it beside its figure."""
    from deproj.process.machine import machine
    from deproj.speed.growth import as_json, figure, measured, text

    curves = measured(progress)
    print(text(curves))
    write_whole(out, json.dumps({"machine": machine("cpu"), "growth": as_json(curves)}, indent=2) + "\n")
    figure(curves, out.with_suffix(".svg"))
    print(f"Wrote {out} and {out.with_suffix('.svg')}.")


def bench(args: argparse.Namespace, progress: Progress) -> None:
    """Measures, and writes the table."""
    rounds = (2 if args.quick else 5) if args.rounds is None else args.rounds
    if rounds < 1:
        raise UserError(f"--rounds is at least 1; got {rounds}.")
    if not args.out.parent.is_dir():
        raise UserError(f"--out {args.out}: there is no folder {args.out.parent}.")
    if args.growth and (args.quick or args.only or args.rounds or args.device):
        raise UserError("--growth measures what it measures; give it with --out alone.")
    if args.growth and args.out.suffix == ".svg":
        raise UserError(f"--out {args.out} is the JSON, the figure goes beside it as .svg; call it .json.")
    # torch, Lightning and diffusers take seconds to import: a mistake in the options is told before
    import torch

    from deproj.process.machine import machine, multiplies_bfloat16
    from deproj.speed.cases import cases, measure, peak_memory
    from deproj.speed.table import as_text, rows_of

    if args.growth:
        grow(args.out, progress)
        return
    device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda, but there is no CUDA here; use --device cpu.")
    half = multiplies_bfloat16(device)
    every = [case for case in cases(args.quick, device) if half or case.precision != "bf16"]
    found = chosen(every, args.only)
    measure(found, rounds, progress)
    rows = rows_of(found)
    print(as_text(rows))
    codes = [] if args.quick or args.only else ["plain loop", "ours", *["ours bf16"] * half]
    memory = {code: mib for code in codes if (mib := peak_memory(code, device)) is not None}
    if memory:
        said = ", ".join(f"{code} {mib:,.0f} MiB" for code, mib in memory.items())
        print(f"\nPeak memory of a process that trains at the real size (eos_onward, recursive): {said}.")
    print(LEGEND.format(rounds=rounds))
    if device == "cpu":
        print("A share above 100 %: oneDNN's products with packed weights beat the plain 2048³ ones.")
        if not half:
            print("This CPU is no faster at products in bfloat16, so none were measured.")
        print("CUDA, and training as CUDA graphs: not measured here (python -m deproj.bench --device cuda).")
    report = {"machine": machine(device), "rounds": rounds, "rows": [asdict(row) for row in rows], "peak_memory_mib": memory}
    write_whole(args.out, json.dumps(report, indent=2) + "\n")
    print(f"Wrote {args.out}.")


def main() -> int:
    args = options().parse_args()

    def command() -> None:
        progress = progress_here()
        with progress.phase("measuring"):
            bench(args, progress)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
