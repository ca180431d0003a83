"""One page that compares runs: ``python -m deproj.report FOLDER...`` writes ``report/index.html``.

The page opens from the file system and needs no network. Beside it the same as ``report.json`` and ``report.md``, and
the pictures of each seed on one sheet and the figures as files.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from deproj.pixel import shipped
from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.process.files import named_path, write_whole
from deproj.process.progress import Progress, progress_here
from deproj.process.quiet import quiet_libraries
from deproj.process.system import command_line

if TYPE_CHECKING:
    from deproj.measure.results import Setting

__all__: list[str] = []


def options() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m deproj.report", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("folders", nargs="+", type=Path, metavar="FOLDER", help="runs, sweeps, baselines and measured models")
    add("--against", metavar="SETTING", help='differences are to this one, as in "all, batch" (the first of the tables)')
    add("--seeds", type=int, default=3, help="picture seeds that can be paged through (3); 0 for no pictures")
    add("--out", type=named_path, default=Path("report"), help="folder of the report (report)")
    return parser


def report(args: argparse.Namespace, progress: Progress) -> None:
    """Reads the runs, draws, and writes the page."""
    if args.seeds < 0:
        raise UserError(f"--seeds is at least 0; got {args.seeds}.")
    if missing := [folder for folder in args.folders if not folder.is_dir()]:
        raise UserError(f"no folder {missing[0]}. {measure_first(missing[0])}".rstrip())
    # torch, diffusers and matplotlib take seconds to import: a mistake in the options is told before
    from deproj.measure.results import collect
    from deproj.measure.rows import rows_of
    from deproj.report.figures import by_place, curves, scatter
    from deproj.report.page import page
    from deproj.report.settings import copy_settings
    from deproj.report.tables import as_json, markdown
    from deproj.report.verdict import verdict

    quiet_libraries()
    found, left_out = collect(args.folders)
    against = found[0] if args.against is None else named(found, args.against)
    rows = rows_of(found, against)
    said = verdict(found, rows)
    out, command = args.out, command_line(["python", "-m", "deproj.report", *sys.argv[1:]])
    out.mkdir(parents=True, exist_ok=True)
    before = " The report that was there is replaced; --out names another folder." if (out / "index.html").exists() else ""
    drawn: list[str] = []
    if args.seeds and any(setting.first.model is not None for setting in found):
        from deproj.report.pictures import draw_pictures  # with diffusers and the weights

        drawn, damaged = draw_pictures(found, args.seeds, out, progress)
        left_out += damaged
    figures = {
        "Fidelity against noise": scatter(found, rows),
        "Where in the sequence the error is": by_place(found),
        "Learning curves": curves(found),
    }
    there = {title: figure for title, figure in figures.items() if figure is not None}
    copies = copy_settings(found, out)
    for title, figure in there.items():
        write_whole(out / f"{title.lower().replace(' ', '-')}.svg", figure.whole)
    write_whole(out / "index.html", page(found, left_out, rows, against, drawn, args.seeds, there, command, said, copies))
    write_whole(out / "report.md", markdown(rows, left_out, against.label, command, said))
    write_whole(out / "report.json", as_json(rows, left_out, against.label, command, said))
    for folder, reason in left_out:
        print(f"left out: {folder}: {reason}")
    print("\n".join(said))
    print(f"{len(found)} setting{'s' * (len(found) != 1)}. Wrote {out / 'index.html'}, report.md and report.json.{before}")


def measure_first(name: Path) -> str:
    """What to do about a model that ships, which is no folder; empty for what is none."""
    if name.as_posix() not in shipped():
        return ""
    return f"A model that ships is measured first, and its measures are reported on: python -m deproj.evaluate {name}"


def named(found: list[Setting], name: str) -> Setting:
    """A setting by its label, or by its choices in full where one alone has them."""
    fitting = [one for one in found if one.label == name] or [one for one in found if one.name == name]
    if len(fitting) != 1:
        raise UserError(f"no setting {name!r}; there are: {'; '.join(setting.label for setting in found)}.")
    return fitting[0]


def main() -> int:
    args = options().parse_args()

    def command() -> None:
        progress = progress_here()
        with progress.phase("reporting"):
            report(args, progress)

    return run_command(command, args.out)


if __name__ == "__main__":
    sys.exit(main())
