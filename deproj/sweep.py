"""Sweeps: what becomes of each job, the index of all, and what is said at the end."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from deproj.files import alone, write_whole
from deproj.ranks import node_number

__all__ = ["INDEX", "SweepEnd", "note", "rows"]

INDEX = "sweep.csv"
ALWAYS = ("selection", "feed", "model", "seed")
MEASURES = ("conditioning error", "fidelity")


def note(sweep: Path, folder: Path, number: int, settings: dict[str, Any], state: str, error: str = "") -> None:
    """Notes the state of a job in its folder (``job.json``) and writes the sweep's index anew.

    Args:
        sweep: folder of the sweep.
        folder: of the job.
        settings: the job's choices: selection, feed, model, seed and all that its command sets.
        state: started, done, failed or interrupted; a job that was killed stays started.
        error: of a failed job, in a line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"number": number, "settings": settings, "state": state, "error": error}
    write_whole(folder / "job.json", json.dumps(about, indent=2) + "\n")
    with alone(sweep / ".lock"):
        found = rows(sweep)
        columns = list(dict.fromkeys(key for row in found for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        write_whole(sweep / INDEX, text.getvalue())


def rows(sweep: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep by number: folder, settings, state, best metrics and seconds, as `INDEX` holds them."""
    found = []
    for path in sweep.rglob("job.json"):
        job = json.loads(path.read_text())
        row = {"number": job["number"], "folder": path.parent.relative_to(sweep).as_posix(), **job["settings"]}
        row |= {"state": job["state"], "val_loss": "", "epochs": "", "seconds": ""}
        row |= {f"{kind} {name}": "" for kind in ("single", "composed") for name in MEASURES}
        if job["state"] == "done":
            result = json.loads((path.parent / "result.json").read_text())
            row |= {key: result[key] for key in ("val_loss", "epochs", "seconds")}
            if (path.parent / "evaluation.json").exists():
                evaluation = json.loads((path.parent / "evaluation.json").read_text())
                row |= {
                    f"{kind} {name}": evaluation[kind][name]["value"]
                    for kind in ("single", "composed")
                    for name in MEASURES
                    if name in evaluation[kind]
                }
        found.append(row | {"error": job["error"]})
    return sorted(found, key=lambda row: (row["number"], row["folder"]))


class SweepEnd(Callback):
    """Says at the end of a sweep what failed and how to go on; then the exit code is 1."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        if node_number() > 0:  # the first node tells
            return
        sweep = Path(config.hydra.sweep.dir)
        found = rows(sweep)
        states = Counter(row["state"] for row in found)
        print(f"{len(found)} jobs, {', '.join(f'{count} {state}' for state, count in states.items())}: {sweep / INDEX}")
        if set(states) <= {"done"}:
            return
        for row in found:
            if row["state"] != "done":
                chosen = " ".join(f"{key}={row[key]}" for key in ALWAYS)
                why = f": {row['error']}" if row["error"] else ""
                print(f"  {row['folder']} ({chosen}) {row['state']}{why}", file=sys.stderr)
        given = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.sweep.dir=")]
        command = shlex.join(["python", "-m", "deproj.train", *given, f"hydra.sweep.dir={sweep}"])
        print(f"Each has its log in its folder. To run just these again: {command}", file=sys.stderr)
        raise SystemExit(1)  # Hydra turns a callback's exceptions into warnings
