"""Runs and baselines read back from their folders, grouped into settings, and their numbers side by side."""

from __future__ import annotations

import csv
import json
import shlex
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deproj.measure.compare import MEASURES, difference, estimate
from deproj.process.errors import UserError
from deproj.settings.compose import compose_config, differences, read_config
from deproj.settings.messages import typed
from deproj.settings.nodes import foreign_classes
from deproj.settings.shipped import GROUPS

if TYPE_CHECKING:
    from deproj.model.base import Deprojector

__all__ = ["KINDS", "ORDER", "Result", "Setting", "collect", "command_of", "describe", "numbers"]

KINDS = ("single", "composed")
#: What tells no setting from another: where and how long it ran, how it was shown, and its seed.
NO_SETTING = (
    *("seed", "resume", "render", "evaluate", "logger", "choices", "data.cache", "data.keep"),
    *("trainer.accelerator", "trainer.progress", "trainer.cuda_graphs", "trainer.devices", "trainer.nodes"),
    *("selection", "feed", "init_from", "sd", "model"),
)
#: The article's order of the settings.
ORDER = ("all", "words_eos", "words_eos_reversed", "eos_onward")


@dataclass
class Result:
    """A run or baseline with its evaluation."""

    folder: Path
    label: str
    rank: tuple[Any, ...]
    evaluation: dict[str, Any]
    config: dict[str, Any]
    seed: int | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)  # (epoch, held-out free-running loss)
    machine: dict[str, Any] | None = None
    seconds: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)  # what else differs from the default settings


@dataclass
class Setting:
    """Runs that differ in their seed alone."""

    label: str
    results: list[Result]

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        return [result.evaluation for result in self.results]

    @property
    def baseline(self) -> bool:
        return self.results[0].seed is None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of prompts that it was measured on: single ones have no parts to take a mean of."""
        return KINDS[1:] if self.results[0].extra.get("composed") == "mean" else KINDS


def find(folders: list[Path]) -> Iterator[Path]:
    """Folders of runs and baselines, in and under those named."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no folder {folder}.")
        found = {path.parent for name in ("config.yaml", "baseline.json") for path in folder.rglob(name)}
        if not found:
            raise UserError(f"{folder} holds no runs.")
        yield from sorted(found)


def read(folder: Path, defaults: dict[str, Any], name: str = "evaluation.json") -> Result:
    """A run or baseline, or a `UserError` that says what it lacks."""
    baseline = folder / "baseline.json"
    try:
        evaluation = json.loads((folder / name).read_text())
        wanted = [evaluation[key] for key in ("world", "seed", "prompts", "trained")]
        wanted += [evaluation[key][kind] for key in ("raw", "by_place") for kind in KINDS]
        if not isinstance(wanted[0], str) or not isinstance(wanted[-1], list):
            raise TypeError
    except OSError:
        if not baseline.is_file() and not (folder / "result.json").is_file():
            raise UserError("unfinished") from None
        raise UserError(f"not evaluated: {evaluate_again(folder)}") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"broken: {name} cannot be read") from None
    if baseline.is_file():
        try:
            about = json.loads(baseline.read_text())
            kind, selection = str(about["baseline"]), str(about["choices"]["selection"])
        except (ValueError, KeyError, TypeError):
            raise UserError("broken: baseline.json cannot be read") from None
        return Result(folder, f"{kind}, {selection}", (1, kind, place_of(selection)), evaluation, about)
    config = read_config(folder / "config.yaml")
    try:
        choices = config["choices"]
        label = f"{choices['selection']}, {choices['feed']}"
        rank: tuple[Any, ...] = (0, place_of(choices["selection"]), choices["feed"])
        changed = differences(defaults, config)
        extra = {
            key: new
            for key, (_, new) in changed.items()
            if not key.startswith(NO_SETTING)
            or (key.startswith(("model.", "selection.", "feed.")) and not key.endswith("._target_"))
        }
        if choices["model"] != "lstm":
            label = f"{choices['model']}, {choices['selection']}"
            rank = (1, choices["model"], place_of(choices["selection"]))
        if name != "evaluation.json":
            extra["composed"] = "mean"
        if config["init_from"]:
            extra["init_from"] = "another run"
        result = json.loads((folder / "result.json").read_text())
        with (folder / "metrics.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get("val/loss")]
        curve = [(int(row["epoch"]) + 1, float(row["val/loss"])) for row in rows]
        seed = int(config["seed"])
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"broken: {type(error).__name__}: {error}") from None
    return Result(
        folder, label, rank, evaluation, config, seed, curve, result.get("machine"), result.get("seconds"), extra
    )  # fmt: skip


def evaluate_again(folder: Path) -> str:
    """The command that measures a run, with its own classes trusted."""
    names: list[str] = []
    with suppress(UserError):
        names = foreign_classes(read_config(folder / "config.yaml"), ("selection",))
    return " ".join(["python -m deproj.evaluate", shlex.quote(folder.as_posix()), *(f"--trust {name}" for name in names)])


def place_of(selection: str) -> tuple[int, str]:
    return (ORDER.index(selection) if selection in ORDER else len(ORDER), selection)


def made_on(result: Result) -> str:
    """What must be the same of all that is compared: the world, the prompts, the seeds."""
    return json.dumps([result.evaluation[key] for key in ("world", "prompts", "seed")])


def collect(folders: list[Path]) -> tuple[list[Setting], list[tuple[Path, str]]]:
    """Settings in order, and what was left out with the reason."""
    defaults = compose_config([])
    read_back: list[Result] = []
    left_out: list[tuple[Path, str]] = []
    found = list({folder.resolve(): folder for folder in find(folders)}.values())
    files = [(folder, "evaluation.json") for folder in found]
    files += [(folder, name) for folder in found if (folder / (name := "evaluation-mean.json")).is_file()]
    for folder, name in files:
        try:
            read_back.append(read(folder, defaults, name))
        except UserError as error:
            left_out.append((folder, str(error)))
    results: list[Result] = []
    kept = Counter(map(made_on, read_back)).most_common(1)[0][0] if read_back else ""
    for result in read_back:
        again = evaluate_again(result.folder)
        if made_on(result) == kept:
            results.append(result)
        elif result.evaluation["world"] != json.loads(kept)[0]:
            left_out.append((result.folder, f"of another world than most; if it is the same by now: {again}"))
        else:
            left_out.append((result.folder, f"evaluated on other prompts than most: {again}"))
    if not results:
        reasons = "; ".join(f"{folder}: {reason}" for folder, reason in left_out[:3])
        raise UserError(f"nothing to report: {reasons}")
    runs = [result.extra for result in results if result.seed is not None]
    for result in results:  # said is only what tells these runs from one another
        told = [f"{k}={v}" for k, v in result.extra.items() if any(other.get(k) != v for other in runs)]
        result.label, result.rank = ", ".join([result.label, *told]), (*result.rank, *told)
    groups: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda r: (str(r.rank), r.seed or 0)):
        members = groups.setdefault(result.label, [])
        if any(result.seed == other.seed for other in members):
            left_out.append((result.folder, f"the same setting and seed as {members[-1].folder.as_posix()}"))
        else:
            members.append(result)
    return [Setting(label, members) for label, members in groups.items()], left_out


def numbers(found: list[Setting], against: Setting) -> list[dict[str, Any]]:
    """A row for each setting and kind of prompt: estimates, differences to `against`, and which are the best."""
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        part: list[dict[str, Any]] = []
        for setting in (setting for setting in found if kind in setting.kinds):
            trained = setting.evaluations[0]["trained"]
            values = {m: e for m in MEASURES if (e := estimate(setting.evaluations, kind, m)) is not None}
            paired = [result.seed for result in setting.results] == [result.seed for result in against.results]
            others = {m: difference(setting.evaluations, against.evaluations, kind, m, paired) for m in values}
            untrained = [m for m in values if m.startswith("mse ") and not trained[m[4:]]]
            part.append(
                {"setting": setting.label, "prompts": kind, "seeds": len(setting.results), "baseline": setting.baseline}
                | {"values": values, "differences": others, "untrained": untrained, "best": []}
            )
        for measure, more in MEASURES.items():
            having = [row for row in part if measure in row["values"]]
            if len(having) < 2:
                continue
            sign = 1 if more else -1
            best = max(having, key=lambda row: sign * row["values"][measure].value)
            others_reach = max(
                (row["values"][measure].high if more else -row["values"][measure].low) for row in having if row is not best
            )
            own = best["values"][measure].low if more else -best["values"][measure].high
            if own > others_reach:
                best["best"].append(measure)
        rows += part
    return rows


def command_of(result: Result) -> str:
    """The command that makes a run or baseline again, as far as its config tells."""
    config, choices = result.config, result.config["choices"]
    if result.seed is None:
        count, seed = len(result.evaluation["prompts"]), result.evaluation["seed"]
        return (
            f"python -m deproj.evaluate --baseline {config['baseline']} --selection {choices['selection']} "
            f"--count {count} --seed {seed} --out {shlex.quote(result.folder.as_posix())}"
        )
    groups = [f"{g}={choices[g]}" for g in GROUPS if g in choices and g not in ("experiment", "logger")]
    own: list[str] = []
    try:
        defaults = compose_config(groups)
    except UserError:  # a selection, feed or model of the user's own
        own = [choice for choice in groups if not ships(choice)]
        defaults = compose_config([choice for choice in groups if choice not in own])
        for group in (choice.partition("=")[0] for choice in own):
            defaults[group] = {"_target_": config[group].get("_target_")}  # what else it has is said
    passing = ("choices", "resume", "logger", "data.cache", "data.keep", "trainer.progress", "trainer.devices", "trainer.nodes")
    changed = {k: new for k, (_, new) in differences(defaults, config).items() if not k.startswith(passing)}
    said = [typed(key, new) for key, new in changed.items()]
    told = [choice for choice in groups if choice not in ("model=lstm", "sd=pixel", "trainer=single")]
    where = ["--config-dir=YOURS"] if own else []
    return " ".join(["python -m deproj.train", *where, *told, *said])


def ships(choice: str) -> bool:
    """Whether a choice such as ``selection=all`` is among the settings that come with the package."""
    try:
        compose_config([choice])
    except UserError:
        return False
    return True


def describe(model: Deprojector, run: Path, result: dict[str, Any]) -> None:
    """Tells a model what its card says of its run: losses, numbers, the command, and the sheet of benchmark prompts.

    Args:
        result: of the run, as in ``result.json``.
    """
    config = read_config(run / "config.yaml")
    told: dict[str, Any] = {"command": command_of(Result(run, "", (), {}, config, seed=int(config["seed"])))}
    told |= {key: result[key] for key in ("val_loss", "epochs")}
    if (run / "evaluation.json").is_file():
        evaluation = json.loads((run / "evaluation.json").read_text())
        told["evaluation"] = {key: evaluation[key] for key in (*KINDS, "trained")}
    model.provenance["results"] = told
    if (run / "sheets" / "best.png").is_file():
        model.sheet = (run / "sheets" / "best.png").read_bytes()
