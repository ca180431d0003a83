"""From a trial's folder to this folder's README and the measured figures of docs/gpu.md: publish.py FOLDER [--root ROOT]."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
MARKS = ("<!-- measured figures: begin -->", "<!-- measured figures: end -->")
RESULT_MARKS = ("<!-- results: begin -->", "<!-- results: end -->")
COLUMNS = ("plain loop", "compiled place", "cudnn", "ours", "graphs")


def number(value: Any) -> str:
    """Three digits, without an exponent where it can be."""
    if not isinstance(value, float | int) or isinstance(value, bool):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in [head, ["---"] * len(head), *rows]
    )


def notes(summary: dict[str, Any], part: str) -> dict[str, Any]:
    found: dict[str, Any] = summary["parts"].get(part, {}).get("result", {}).get("notes", {})
    return found


def conditions(summary: dict[str, Any]) -> str:
    """Which machine, and what ran on it."""
    card, versions = summary["card"], summary["versions"]
    where = f"{summary['cores']} cores and no card: a rehearsal, whose times say nothing"
    if summary["scale"] == "card":
        device = summary["torch device"]["name"]
        where = f"one {device}" + (f", driver {card['driver_version']}, {card['clocks.sm']} when it began" if card else "")
    said = ", ".join(f"{name} {value}" for name, value in versions.items() if value)
    took = f"{summary['seconds']} s" if summary["seconds"] is not None else "stopped before its end"
    return f"`{summary['command']}` on {summary['began']}: {summary['state']}, {took}. On {where}. Versions: {said}."


def checks(summary: dict[str, Any]) -> str:
    rows = []
    for name, entry in summary["parts"].items():
        said = entry.get("reason") or " ".join(entry.get("last lines", [])[-1:])
        rows.append([f"**{name}**", entry["status"], f"{entry.get('seconds', 0)} s{': ' + said if said else ''}"])
        rows += [[check["name"], check["state"], check["said"]] for check in entry.get("result", {}).get("checks", [])]
    return table(["part or check", "result", "what was seen"], rows)


def speed(summary: dict[str, Any]) -> str:
    """Milliseconds of every case, and how many times as fast as the plain loop ours is."""
    found, blocks = notes(summary, "fast"), []
    for name in ("training", "generation"):
        rows = []
        for row, kinds in found.get(name, {}).items():
            best = min((kinds[kind]["seconds"] for kind in ("ours", "graphs") if kind in kinds), default=None)
            cells = [number(kinds[kind]["seconds"] * 1e3) if kind in kinds else "" for kind in COLUMNS]
            ratio = number(kinds["plain loop"]["seconds"] / best) if best and "plain loop" in kinds else ""
            made = min((kinds[k] for k in ("ours", "graphs") if k in kinds), key=lambda one: one["seconds"], default={})
            shares = [f"{value:.0%}" for key, value in made.items() if key.startswith("share of")]
            memory = [
                number(kinds[kind]["peak MiB"]) for kind in ("plain loop", "ours", "graphs") if "peak MiB" in kinds.get(kind, {})
            ]
            rows.append([row.replace(" | ", ", "), *cells, ratio, " and ".join(shares), ", ".join(memory)])
        if rows:
            head = [
                "case",
                *(f"{column}, ms" for column in COLUMNS),
                "× plain loop",
                "share of the rate",
                "peak MiB: plain, ours, graphs",
            ]
            blocks.append(f"### {name.capitalize()}\n\n{table(head, rows)}")
    if slower := found.get("rows in which ours isn't the fastest"):
        listed = "\n".join(f"- {row.replace(' | ', ', ')}: {', '.join(said)}" for row, said in slower.items())
        blocks.append(f"Rows in which ours isn't the fastest (profiles.txt of the trial says why):\n\n{listed}")
    if loop := notes(summary, "whole_loop").get("compiled loop"):
        compiling = notes(summary, "whole_loop").get("seconds of compiling")
        blocks.append(
            f"torch.compile of the whole plain loop: {number(loop['seconds'] * 1e3)} ms a step after {number(compiling)} s."
        )
    return "\n\n".join(blocks)


def full_size(summary: dict[str, Any]) -> str:
    rows = []
    for name, found in notes(summary, "full").items():
        what = {key: value for key, value in found.items() if isinstance(value, float | int)}
        rows.append([name, ", ".join(f"{key} {number(value)}" for key, value in what.items())])
    return table(["at full size", "measured"], rows) if rows else ""


def results(summary: dict[str, Any], pictures: list[str]) -> str:
    shown = "\n\n".join(f"![{name.removesuffix('.png')}]({name})" for name in pictures)
    parts = ["## Results", conditions(summary), shown, checks(summary), speed(summary), full_size(summary)]
    return "\n\n".join(part for part in parts if part)


def figures(summary: dict[str, Any]) -> str:
    """The paragraph of measured figures at full size."""
    found, said = notes(summary, "full"), []
    for name in ("keep=states", "keep=tokens"):
        if name in found:
            one = found[name]
            memory = f", {one['peak MiB'] / 1024:.1f} GiB of GPU memory" if one.get("peak MiB") else ""
            said.append(f"`data.{name}`: {number(one['seconds a step'] * 1e3)} ms a training step of {one['batch']}{memory}")
    for name in ("fp16", "fp32"):
        if one := found.get(f"pictures in {name}"):
            memory = f", {one['peak MiB'] / 1024:.1f} GiB" if one.get("peak MiB") else ""
            side = f"{one['side']} × {one['side']}"
            said.append(f"{one['pictures']} pictures of {side} at once in {name}: {number(one['seconds'])} s{memory}")
    return f"Measured on one {summary['torch device']['name']} ([how](../experiments/cuda/README.md)). " + "; ".join(said) + "."


def between(text: str, marks: tuple[str, str], new: str) -> str:
    """A text with what stands between two marks replaced."""
    before, begin, rest = text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        raise SystemExit(f"error: there is no {marks[0]} … {marks[1]} to write between.")
    return f"{before}{begin}\n{new}\n{end}{after}"


def publish(folder: Path, root: Path) -> None:
    """Writes the README's results, copies the pictures, and, of a trial on a card, writes the figures of docs/gpu.md."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    readme, docs = root / "experiments" / "cuda" / "README.md", root / "docs" / "gpu.md"
    pictures = [name for name in ("sheet.png", "pictures.png") if (folder / name).is_file()]
    new = between(readme.read_text(encoding="utf-8"), RESULT_MARKS, results(summary, pictures))
    for name in pictures:
        shutil.copyfile(folder / name, readme.parent / name)
    readme.write_text(new, encoding="utf-8")
    if summary["scale"] == "card":
        docs.write_text(between(docs.read_text(encoding="utf-8"), MARKS, figures(summary)), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the trial's $OUT")
    parser.add_argument("--root", type=Path, default=ROOT, help="of the repository (this one)")
    args = parser.parse_args()
    if not (args.folder / "summary.json").is_file():
        print(f"error: {args.folder} holds no summary.json; name the folder that the trial wrote.", file=sys.stderr)
        return 1
    publish(args.folder, args.root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
