"""Sweeps: the state of each job, the index of all, and the report at the end."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from deproj.process.errors import UserError
from deproj.process.files import alone, below, write_whole
from deproj.process.node import is_first_node
from deproj.process.system import activation, command_line
from deproj.runs.folder import RunFolder
from deproj.runs.listing import best_first, listed, table
from deproj.runs.offline import offline_runs, was_sent
from deproj.runs.records import KINDS, JobRecord
from deproj.settings.messages import typed
from deproj.settings.shipped import GROUPS

__all__ = ["INDEX", "SweepStart", "note", "refuse", "remove_if_unused", "rows", "tell", "varied_in"]

INDEX = "sweep.csv"
ALWAYS = ("selection", "feed", "model", "seed")
#: Where Hydra puts a job when nobody says otherwise.
BY_NUMBER = "${hydra.job.num}"
MEASURES = ("conditioning_error", "fidelity", "clip_score")
#: So many settings name a job's folder at most.
NAMED = 4
#: So many bytes of a value do.
LONGEST = 40


def note(sweep: Path, folder: Path, number: int, settings: dict[str, Any], state: str, error: str = "") -> None:
    """Notes the state of a job in its folder (``job.json``) and writes the sweep's index anew.

    Args:
        sweep: folder of the sweep.
        folder: of the job.
        settings: the job's choices: selection, feed, model, seed and all that its command sets.
        state: started, done, failed or interrupted; a job that was killed stays started until the end of the sweep.
        error: of a failed job, in a line.
    """
    run = RunFolder(folder)
    run.write(run.job, JobRecord(number, settings, state, error))
    write_index(sweep, run)


def refuse(sweep: Path, folder: Path, error: str) -> bool:
    """Notes that a job of this command was refused its folder, whose record it leaves otherwise; returns whether there is one."""
    run = RunFolder(folder)
    if not run.job.is_file():
        return False
    run.write(run.job, replace(run.read_job(), error=error))
    write_index(sweep, run)
    return True


def write_index(sweep: Path, changed: RunFolder | None = None) -> None:
    """Writes the index anew.

    Args:
        changed: the one job that differs from the index: reading all, whenever one changes, takes hours in a sweep of a thousand.
    """
    with alone(sweep / ".lock"):
        found = rows(sweep) if changed is None else rows_with(sweep, changed)
        columns = list(dict.fromkeys(key for row in found for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        write_whole(sweep / INDEX, text.getvalue())


def jobs(sweep: Path) -> list[tuple[RunFolder, JobRecord]]:
    """The jobs of a sweep by number."""
    found = [RunFolder(path.parent) for path in below(sweep) if path.name == "job.json"]
    return sorted(((run, run.read_job()) for run in found), key=lambda job: (job[1].number, job[0].path))


def rows(sweep: Path) -> list[dict[str, Any]]:
    """The jobs of a sweep by number: folder, settings, state, best metrics and seconds, as `INDEX` holds them."""
    return [row_of(sweep, run, job) for run, job in jobs(sweep)]


def row_of(sweep: Path, run: RunFolder, job: JobRecord) -> dict[str, Any]:
    row: dict[str, Any] = {"number": job.number, "folder": run.path.relative_to(sweep).as_posix(), **job.settings}
    row |= {"state": job.state, "val/loss": "", "epochs": "", "seconds": ""}
    row |= {f"{kind}/{name}": "" for kind in KINDS for name in MEASURES}
    if job.state == "done":
        try:
            row |= results(run)
        except (OSError, UserError):  # somebody has deleted it to have the job done again
            row["state"] = "without result"
    return row | {"error": job.error}


def rows_with(sweep: Path, changed: RunFolder) -> list[dict[str, Any]]:
    """The rows of the index as it is, one of them anew; all of them anew where it can't be read."""
    try:
        with (sweep / INDEX).open(encoding="utf-8", newline="") as file:
            found: dict[str, dict[str, Any]] = {row["folder"]: dict(row) for row in csv.DictReader(file, strict=True)}
        row = row_of(sweep, changed, changed.read_job())
        found[row["folder"]] = row
        return sorted(found.values(), key=lambda row: (int(row["number"]), row["folder"]))
    except (OSError, KeyError, TypeError, ValueError, csv.Error):
        return rows(sweep)


def results(run: RunFolder) -> dict[str, Any]:
    """The columns of the index for a job that is done."""
    result = run.read_result()
    found: dict[str, Any] = {"val/loss": result.val_loss, "epochs": result.epochs, "seconds": result.seconds}
    if run.evaluation().exists():
        values = run.read_evaluation().values
        found |= {f"{kind}/{name}": values.get(f"{kind}/{name}", "") for kind in KINDS for name in MEASURES}
    return found


def note_killed(sweep: Path) -> None:
    """Notes as killed the jobs that have started, have not ended, and are at work no more."""
    for run, job in jobs(sweep):
        if job.state != "started":
            continue
        try:
            with alone(run.lock, refusal="at work"):
                run.write(run.job, replace(job, state="killed"))
        except UserError:
            continue
    write_index(sweep)


class SweepStart(Callback):
    """Notes which sweep this command is, when Hydra begins it: its end, if it is no good one, passes Hydra by.

    Attributes:
        folder: of the sweep, or None.
        first: whether this machine tells of it.
        made: the folder, if it wasn't there, and those above it that weren't, the deepest first.
        varied: the keys of what it varies.
    """

    folder: ClassVar[Path | None] = None
    made: ClassVar[list[Path]] = []
    varied: ClassVar[list[str] | None] = None
    first: ClassVar[bool] = True

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        folder = SweepStart.folder = Path(config.hydra.sweep.dir)
        SweepStart.first, SweepStart.varied = is_first_node(config), varied_by(config.hydra)
        SweepStart.made = [path for path in (folder.absolute(), *folder.absolute().parents) if not path.exists()]
        if "optuna" in str(config.hydra.sweeper.get("_target_")).lower():
            import optuna  # an extra

            optuna.logging.set_verbosity(logging.WARNING)
        raw: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
        if raw["subdir"] == BY_NUMBER and not (SweepStart.folder / "0").is_dir():  # a sweep of before goes on as it began
            with read_write(config), open_dict(config):
                config.hydra.overrides.hydra.append(f"hydra.sweep.subdir='{'-'.join([BY_NUMBER, *swept(config)])}'")


def swept(config: DictConfig) -> list[str]:
    """What a sweep varies, each as the part of a folder's name: ``feed=${deproj.name:${hydra.runtime.choices.feed}}``."""
    varied = varied_by(config.hydra)
    unnamed = unnamed_in(SweepStart.folder) if SweepStart.folder else set()
    varied = [key for key in varied if key not in unnamed]
    varied = varied[:NAMED]
    where = {key: f"hydra.runtime.choices.{key}" if key in GROUPS else key for key in varied}
    return [f"{key.rpartition('.')[2]}=${{deproj.name:${{{place}}}}}" for key, place in where.items()]


def unnamed_in(sweep: Path) -> set[str]:
    """The settings of a sweep of before that its folders' names leave out, as they did of paths: it goes on with its names."""
    found = next(sweep.glob("0-*/job.json"), None)
    with contextlib.suppress(OSError, UserError):
        if found is not None:
            settings = RunFolder(found.parent).read_job().settings
            return {key for key in settings if f"-{key.rpartition('.')[2]}=" not in found.parent.name}
    return set()


def remove_if_unused() -> None:
    """Takes away the folder that this command has made for a sweep of which no job has begun."""
    if not SweepStart.made or {path.name for path in SweepStart.made[0].glob("*")} - {"multirun.yaml"}:
        return
    with contextlib.suppress(OSError):
        (SweepStart.made[0] / "multirun.yaml").unlink(missing_ok=True)
        for path in SweepStart.made:
            path.rmdir()


def varied_by(hydra: Any) -> list[str]:
    """The keys of what a sweep varies, by Hydra's own settings of it."""
    parsed = OverridesParser.create().parse_overrides(list(hydra.overrides.task))
    sought = hydra.sweeper.get("params") or {}
    return list(dict.fromkeys([*(str(one.key_or_group) for one in parsed if one.is_sweep_override()), *map(str, sought)]))


def varied_in(sweep: Path) -> list[str] | None:
    """The same of a sweep's folder, by the file that Hydra writes there, or of the sweep at hand; None where that isn't known."""
    try:
        config: Any = OmegaConf.load(sweep / "multirun.yaml")
        return varied_by(config.hydra)
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError, OmegaConfBaseException, HydraException):
        return SweepStart.varied if sweep.resolve() == (SweepStart.folder or Path()).resolve() else None


def named(value: Any) -> str:
    """A value as part of a folder's name on any system: of a path its end, and no signs that a system refuses."""
    text = re.sub(r"[^\w.+-]+", "-", re.split(r"[/\\]", str(value).rstrip("/\\"))[-1])
    text = text.encode()[:LONGEST].decode(errors="ignore").rstrip("-. ")
    return (text if re.fullmatch(r"[+-]?[\d.]+([eE][+-]?\d+)?", text) else text.lstrip("-. ")) or "empty"


OmegaConf.register_new_resolver("deproj.name", named, replace=True)  # here, since job processes import this module


def differing(settings: list[dict[str, Any]]) -> list[str]:
    """The settings that a sweep's jobs don't share, by which a job is told; else its choices."""
    keys = dict.fromkeys(key for one in settings for key in one)
    return [key for key in keys if len({str(one.get(key)) for one in settings}) > 1] or list(ALWAYS)


def tell(sweep: Path) -> bool:
    """Reports at the end of a sweep, however it ends, what has failed and how to go on; returns whether all is done."""
    note_killed(sweep)
    found = rows(sweep)
    states = Counter(row["state"] for row in found)
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"{len(found)} job{'s' * (len(found) != 1)}, {counts}: {sweep / INDEX}")
    told = differing([job.settings for _, job in jobs(sweep)])
    left = [row for row in found if row["state"] != "done" or row["error"]]
    print(table(best_first(listed([sweep]))))
    if first := activation():
        print(f"To have python be the one that this ran in: {first}")
    if any(row["state"] == "done" for row in found):
        measured = any(row["composed/fidelity"] != "" or row["composed/conditioning_error"] != "" for row in found)
        what, command = ("compare them on a page", "report") if measured else ("measure them", "evaluate")
        print(f"To {what}: {command_line(['python', '-m', f'deproj.{command}', str(sweep)])}")
    if not all(map(was_sent, offline_runs(sweep))):
        print(f"To send its W&B runs later, all at once: {command_line(['python', '-m', 'deproj.runs', str(sweep), '--sync'])}")
    if not left:
        return True
    for row in left:
        chosen = " ".join(f"{key}={row.get(key, '')}" for key in told)
        error = row["error"] or ("still at work, without this command" if row["state"] == "started" else "")
        why = f": {error}" if error else ""
        print(f"  {row['folder']} ({chosen}) {row['state']}{why}", file=sys.stderr)
    given = [argument for argument in sys.argv[1:] if not argument.startswith("hydra.sweep.dir=")]
    command = f"{command_line(['python', '-m', 'deproj.train', *given])} {typed('hydra.sweep.dir', str(sweep))}"
    again = "To run just these again, and what has not begun, once what is wrong with them is mended"
    print(f"Each has its log in its folder. {again}: {command}", file=sys.stderr)
    return False
