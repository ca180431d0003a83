"""The contents of the JSON files of a run, as typed records.

Every record is read with `from_json`, which raises a ValueError for content that is none of ours, and written with `to_json`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    *(
        "KINDS",
        "MEASURES",
        "NEGATIVE",
        "SHARES",
        "BaselineRecord",
        "CaptionsRecord",
        "Evaluation",
        "JobRecord",
        "Measured",
        "ModelRecord",
    ),
    *("RunResult", "Summary", "spelt", "told"),
]

#: Kinds of prompts: as plain text, and as the sum of the embeddings of their parts.
KINDS = ("single", "composed")
#: The measures of tables and reports, in their order, and whether more is better; None where 1 is right.
MEASURES: dict[str, bool | None] = {
    "fidelity": True,
    "clip_score": True,
    "conditioning_error": False,
    "noise": None,
    "two_colours": False,
    "likeness": True,
    "mse_words": False,
    "mse_eos": False,
    "mse_padding": False,
}
#: Those that are shares of something, between 0 and 1.
SHARES = ("fidelity", "two_colours")
#: Those that can be below 0.
NEGATIVE = ("likeness", "clip_score")


def told(measure: str) -> str:
    """A measure in words."""
    return measure.replace("_", " ")


def spelt(measure: str) -> str:
    """A measure as files and dashboards spell it; early files parted its words by spaces."""
    return measure.replace(" ", "_")


def refused(what: str, error: Exception) -> ValueError:
    return ValueError(f"no {what} of ours ({type(error).__name__}: {error})")


@dataclass(frozen=True)
class Summary:
    """A measure over the prompts: its value with a 95 % interval (None where nothing could be measured), and how many prompts
    it is of."""

    value: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Measured:
    """What was measured on one kind of prompts.

    Attributes:
        summaries: by the name of the measure.
        raw: what each number is made of, (above, below), one entry a prompt; the value is Σ above / Σ below.
        by_place: mean squared error of the states at each place, 77 numbers.
    """

    summaries: dict[str, Summary]
    raw: dict[str, tuple[list[float], list[float]]]
    by_place: list[float | None]


@dataclass(frozen=True)
class Evaluation:
    """``evaluation.json``: all measures of one model on one set of prompts.

    Attributes:
        version: of the way of measuring.
        world: hash of all that the numbers depend on besides the model; numbers compare within one world.
        seed: of the pictures.
        prompts: composed ones, N.
        trained: whether the selection trains a region (words, eos, padding).
    """

    version: int
    world: str
    seed: int
    prompts: list[str]
    trained: dict[str, bool]
    single: Measured
    composed: Measured

    def of(self, kind: str) -> Measured:
        """What was measured on a kind of prompts, one of `KINDS`."""
        return {"single": self.single, "composed": self.composed}[kind]

    @property
    def values(self) -> dict[str, float]:
        """Measures that have a value, by ``kind/name``."""
        return {
            f"{kind}/{name}": summary.value
            for kind in KINDS
            for name, summary in self.of(kind).summaries.items()
            if summary.value is not None
        }

    def summarized(self) -> dict[str, Any]:
        """The numbers without what they are made of, as a model's card keeps them."""
        numbers = {kind: {name: asdict(s) for name, s in self.of(kind).summaries.items()} for kind in KINDS}
        return {**numbers, "trained": self.trained}

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "world": self.world,
            "seed": self.seed,
            "prompts": self.prompts,
            "by_place": {kind: self.of(kind).by_place for kind in KINDS},
            "raw": {kind: {name: list(both) for name, both in self.of(kind).raw.items()} for kind in KINDS},
            **self.summarized(),
        }

    @classmethod
    def from_json(cls, content: Any) -> Evaluation:
        try:
            kinds = {
                kind: Measured(
                    {spelt(name): Summary(**entry) for name, entry in content[kind].items()},
                    {spelt(name): (list(above), list(below)) for name, (above, below) in content["raw"][kind].items()},
                    list(content["by_place"][kind]),
                )
                for kind in KINDS
            }
            world, prompts = content["world"], content["prompts"]
            if not isinstance(world, str) or not isinstance(prompts, list):
                raise TypeError("world is a text and prompts a list")
            return cls(int(content.get("version", 1)), world, int(content["seed"]), prompts, dict(content["trained"]), **kinds)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise refused("evaluation", error) from None


@dataclass(frozen=True)
class RunResult:
    """``result.json``: how a finished run ended.

    Attributes:
        val_loss: least held-out free-running loss.
        epochs: that were trained.
        stopped_early: whether training stopped because the held-out loss no longer fell.
        seconds: in all; `phases` names what they were spent on.
        machine: versions and hardware.
    """

    val_loss: float
    epochs: int
    stopped_early: bool
    seconds: float
    phases: dict[str, float]
    machine: dict[str, Any]
    state: str = "done"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> RunResult:
        try:
            return cls(
                float(content["val_loss"]),
                int(content["epochs"]),
                bool(content["stopped_early"]),
                float(content["seconds"]),
                dict(content.get("phases") or {}),
                dict(content.get("machine") or {}),
                str(content["state"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise refused("result", error) from None


@dataclass(frozen=True)
class BaselineRecord:
    """``baseline.json``: what a baseline in closed form was fitted to.

    Attributes:
        baseline: mean, broadcast, ridge or nearest.
        config: its settings, as of a run: choices, selection, sd, data.
    """

    baseline: str
    config: dict[str, Any]

    @property
    def selection(self) -> str:
        return str(self.config["choices"]["selection"])

    def to_json(self) -> dict[str, Any]:
        return {"baseline": self.baseline, **self.config}

    @classmethod
    def from_json(cls, content: Any) -> BaselineRecord:
        try:
            made = cls(str(content["baseline"]), {key: value for key, value in content.items() if key != "baseline"})
            str(made.selection)
            return made
        except (KeyError, TypeError, AttributeError) as error:
            raise refused("baseline", error) from None


@dataclass(frozen=True)
class ModelRecord:
    """``measured.json``: which model without a run was measured.

    Attributes:
        model: its short name, hub id or folder; "." for the folder that this file lies in.
        config: the settings that it was measured by, as of a run: sd and data.
    """

    model: str
    config: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"model": self.model, **self.config}

    @classmethod
    def from_json(cls, content: Any) -> ModelRecord:
        try:
            return cls(str(content["model"]), {key: dict(content[key]) for key in ("sd", "data")})
        except (KeyError, TypeError, ValueError) as error:
            raise refused("record of a measured model", error) from None


@dataclass(frozen=True)
class JobRecord:
    """``job.json``: one job of a sweep.

    Attributes:
        number: of the job.
        settings: its choices, and all that its command sets.
        state: started, done, failed, interrupted or killed.
        error: of a failed job, in a line.
    """

    number: int
    settings: dict[str, Any]
    state: str
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> JobRecord:
        try:
            return cls(int(content["number"]), dict(content["settings"]), str(content["state"]), str(content["error"]))
        except (KeyError, TypeError, ValueError) as error:
            raise refused("job", error) from None


@dataclass(frozen=True)
class CaptionsRecord:
    """``captions.json``: which captions a run began with.

    Attributes:
        fingerprint: a hash of the texts.
        said: what was read, in a line.
    """

    fingerprint: str
    said: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> CaptionsRecord:
        try:
            return cls(str(content["fingerprint"]), str(content["said"]))
        except (KeyError, TypeError) as error:
            raise refused("record of captions", error) from None
