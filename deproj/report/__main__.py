"""One page that compares runs: ``python -m deproj.report FOLDER...`` writes ``report/index.html``.

The page opens from the file system and needs no network. Beside it the same as ``report.json`` and ``report.md``, and
the pictures of each seed on one sheet and the figures as files.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deproj.measure.results import KINDS, Setting, collect, numbers
from deproj.process.errors import UserError, run_command
from deproj.process.files import write_whole
from deproj.process.quiet import quiet_libraries
from deproj.settings.nodes import settings

if TYPE_CHECKING:
    import torch

__all__: list[str] = []


def draw(found: list[Setting], left_out: list[tuple[Path, str]], seeds: int, out: Path) -> list[str]:
    """Draws the benchmark prompts of every trained setting into ``pictures/``; gives the rows' labels.

    Args:
        left_out: gets the models that are damaged; their numbers stay.
    """
    import torch
    from PIL import Image

    from deproj.clip.encoder import TextEncoder
    from deproj.data.prompts import COMPOSED, SINGLE
    from deproj.draw.renderer import Renderer
    from deproj.draw.sheets import save_image, sheet
    from deproj.draw.stable_diffusion import SdSettings
    from deproj.model.base import Deprojector

    device = "cuda" if torch.cuda.is_available() else "cpu"
    sd = settings(SdSettings, found[0].results[0].config["sd"], "sd")
    if device == "cpu" and not sd.cpu:
        return []
    quiet_libraries()
    prompts = SINGLE + COMPOSED
    encoder = TextEncoder.from_pretrained(sd.path, sd.clip, device)
    renderer = Renderer(sd, encoder.empty.states[0], device)
    rows: dict[str, torch.Tensor] = {"no deprojector": encoder(prompts).states}
    for setting in found:
        folder = setting.results[0].folder / "deprojector"
        if folder.is_dir():
            embedding = encoder.compose(prompts, mean=setting.results[0].extra.get("composed") == "mean")
            try:
                rows[setting.label] = Deprojector.from_pretrained(folder, encoder).to(device).generate(embedding)
            except UserError as error:
                left_out.append((folder, f"not drawn: {error}"))
    if len(rows) == 1:  # numbers alone were kept
        return []
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        # a composed prompt is drawn from the same noise as its plain one
        noises = [100 * seed + k for k in range(len(SINGLE))] * 2
        drawn = {label: renderer(states, noises) for label, states in rows.items()}
        for number, pictures in enumerate(drawn.values()):
            for column, picture in enumerate(pictures):
                image = Image.fromarray(picture.numpy())
                image.thumbnail((256, 256))
                image.save(out / "pictures" / f"{number}-{seed}-{column}.png")
        save_image(sheet(drawn, prompts), out / f"sheet-{seed + 1}.png")
    return list(rows)


def markdown(rows: list[dict[str, Any]], left_out: list[tuple[Path, str]], against: str, command: str) -> str:
    """The tables as Markdown."""
    from deproj.report.page import shown_measures

    measures = shown_measures(rows)
    lines = [f"`{command}`", ""]
    for kind in KINDS:
        lines += [f"## {kind.capitalize()} prompts", "", "| setting | seeds | " + " | ".join(measures) + " |"]
        lines.append("|---|---|" + "---|" * len(measures))
        for row in rows:
            if row["prompts"] == kind:
                cells = []
                for m in measures:
                    text = str(row["values"][m]) + "*" * (m in row["untrained"]) if m in row["values"] else "–"
                    cells.append(f"**{text}**" if m in row["best"] else text)
                count = "" if row["baseline"] else row["seeds"]
                lines.append(f"| {row['setting']} | {count} | " + " | ".join(cells) + " |")
        lines.append("")
        others = [row for row in rows if row["prompts"] == kind and row["setting"] != against]
        if not others:
            continue
        short = [m for m in measures if not m.startswith("mse ")]
        lines += [f"### Differences to {against}", "", "| setting | " + " | ".join(short) + " |", "|---|" + "---|" * len(short)]
        for row in others:
            cells = [str(row["differences"][m]) if row["differences"].get(m) else "–" for m in short]
            lines.append(f"| {row['setting']} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += [f"- left out: {folder.as_posix()}: {reason}" for folder, reason in left_out]
    return "\n".join(lines) + "\n"


def as_json(rows: list[dict[str, Any]], left_out: list[tuple[Path, str]], against: str, command: str) -> str:
    def plain(row: dict[str, Any]) -> dict[str, Any]:
        estimates = ("values", "differences")
        kept = {key: value for key, value in row.items() if key not in estimates}
        return kept | {key: {m: vars(x) for m, x in row[key].items() if x is not None} for key in estimates}

    content = {"command": command, "against": against, "rows": [plain(row) for row in rows]}
    return json.dumps(content | {"left_out": [[f.as_posix(), reason] for f, reason in left_out]}, indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deproj.report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="runs, sweeps and baselines")
    parser.add_argument("--against", metavar="SETTING", help='differences are to this one, as in "all, batch" (the first)')
    parser.add_argument("--seeds", type=int, default=3, help="picture seeds that can be paged through (3); 0 for no pictures")
    parser.add_argument("--out", type=Path, default=Path("report"), help="folder of the report (report)")
    args = parser.parse_args()

    def command() -> None:
        if args.seeds < 0:
            raise UserError(f"--seeds is at least 0; got {args.seeds}.")
        from deproj.report.figures import by_place, curves, scatter
        from deproj.report.page import page

        found, left_out = collect(args.folders)
        labels = [setting.label for setting in found]
        if args.against is not None and args.against not in labels:
            raise UserError(f"no setting {args.against!r}; there are: {'; '.join(labels)}.")
        against = found[0 if args.against is None else labels.index(args.against)]
        rows = numbers(found, against)
        args.out.mkdir(parents=True, exist_ok=True)
        drawn = draw(found, left_out, args.seeds, args.out) if args.seeds else []
        said = shlex.join(["python", "-m", "deproj.report", *sys.argv[1:]])
        figures = {
            "Fidelity against noise": scatter(found, rows),
            "Where in the sequence the error is": by_place(found),
            "Learning curves": curves(found),
        }
        there = {title: figure for title, figure in figures.items() if figure is not None}
        for title, figure in there.items():
            write_whole(args.out / f"{title.lower().replace(' ', '-')}.svg", figure)
        write_whole(args.out / "index.html", page(found, left_out, rows, against, drawn, args.seeds, there, said, args.out))
        write_whole(args.out / "report.md", markdown(rows, left_out, against.label, said))
        write_whole(args.out / "report.json", as_json(rows, left_out, against.label, said))
        for folder, reason in left_out:
            print(f"left out: {folder}: {reason}")
        print(f"{len(found)} setting{'s' * (len(found) != 1)}. Wrote {args.out / 'index.html'}, report.md and report.json.")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
