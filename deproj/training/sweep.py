"""Sweeps: what becomes of each job, the index of all, and what is said at the end."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from deproj.process.errors import UserError
from deproj.process.files import alone, write_whole
from deproj.settings.messages import typed

__all__ = ["INDEX", "SweepStart", "note", "refuse", "rows", "tell"]

INDEX = "sweep.csv"
ALWAYS = ("selection", "feed", "model", "seed")
MEASURES = ("conditioning error", "fidelity", "clip score")


def note(sweep: Path, folder: Path, number: int, settings: dict[str, Any], state: str, error: str = "") -> None:
    """Notes the state of a job in its folder (``job.json``) and writes the sweep's index anew.

    Args:
        sweep: folder of the sweep.
        folder: of the job.
        settings: the job's choices: selection, feed, model, seed and all that its command sets.
        state: started, done, failed or interrupted; a job that was killed stays started until the end of the sweep.
        error: of a failed job, in a line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    about = {"number": number, "settings": settings, "state": state, "error": error}
    write_whole(folder / "job.json", json.dumps(about, indent=2) + "\n")
    write_index(sweep)


def refuse(sweep: Path, folder: Path, error: str) -> bool:
    """Notes that a job of this command was refused its folder, whose record it leaves otherwise; gives whether there is one."""
    path = folder / "job.json"
    if not path.is_file():
        return False
    write_whole(path, json.dumps(json.loads(path.read_text()) | {"error": error}, indent=2) + "\n")
    write_index(sweep)
    return True


def write_index(sweep: Path) -> None:
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
            try:
                row |= results(path.parent)
            except (OSError, ValueError, KeyError):  # somebody has deleted it to have the job done again
                row["state"] = "without result"
        found.append(row | {"error": job["error"]})
    return sorted(found, key=lambda row: (row["number"], row["folder"]))


def results(folder: Path) -> dict[str, Any]:
    """What the index tells of a job that is done."""
    result = json.loads((folder / "result.json").read_text())
    found = {key: result[key] for key in ("val_loss", "epochs", "seconds")}
    if (folder / "evaluation.json").exists():
        evaluation = json.loads((folder / "evaluation.json").read_text())
        found |= {
            f"{kind} {name}": evaluation[kind][name]["value"]
            for kind in ("single", "composed")
            for name in MEASURES
            if name in evaluation[kind]
        }
    return found


def note_killed(sweep: Path) -> None:
    """Notes as killed the jobs that have started, have not ended, and are at work no more."""
    for path in sweep.rglob("job.json"):
        job = json.loads(path.read_text())
        if job["state"] != "started":
            continue
        try:
            with alone(path.parent / ".lock", refusal="at work"):
                write_whole(path, json.dumps(job | {"state": "killed"}, indent=2) + "\n")
        except UserError:
            continue
    write_index(sweep)


class SweepStart(Callback):
    """Notes which sweep this command is, when Hydra begins it: its end, if it is no good one, passes Hydra by.

    Attributes:
        folder: of the sweep, or None.
    """

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        SweepStart.folder = Path(config.hydra.sweep.dir)


def tell(sweep: Path) -> bool:
    """Says at the end of a sweep, however it ends, what has failed and how to go on; gives whether all is done."""
    note_killed(sweep)
    found = rows(sweep)
    states = Counter(row["state"] for row in found)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"{len(found)} job{'s' * (len(found) != 1)}, {counts}: {sweep / INDEX}")
    left = [row for row in found if row["state"] != "done" or row["error"]]
    if not left:
        return True
    for row in left:
        chosen = " ".join(f"{key}={row[key]}" for key in ALWAYS)
        error = row["error"] or ("still at work, without this command" if row["state"] == "started" else "")
        why = f": {error}" if error else ""
        print(f"  {row['folder']} ({chosen}) {row['state']}{why}", file=sys.stderr)
    given = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.sweep.dir=")]
    command = f"{shlex.join(['python', '-m', 'deproj.train', *given])} {typed('hydra.sweep.dir', str(sweep))}"
    print(f"Each has its log in its folder. To run just these again, and what has not begun: {command}", file=sys.stderr)
    return False
