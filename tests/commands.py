"""The commands that the pages show, run in their shortest form or, where that can't be, parsed.

`Commands` has a method for each program. `ONLY_PARSED`, `ONLY_COMPOSED` and `NOT_RUN` say what is not run, and why.
"""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from pages import ROOT

from deproj.data.settings import DataSettings
from deproj.pixel import WEIGHTS
from deproj.process.arguments import Parser
from deproj.settings.compose import compose_config
from deproj.settings.nodes import settings
from deproj.training.settings import RunSettings

#: Commands whose arguments are parsed by their own parser and which end there, and why.
ONLY_PARSED = {
    "deproj.bench": "takes a minute or more",
    "deproj.convert": "needs a checkpoint of the reference (tests/test_convert.py runs it)",
    "deproj.demo": "serves until it is stopped (tests/test_demo.py opens the page)",
    "deproj.fullsize": "writes 3 GB (tests/test_fullsize.py runs it on small shapes)",
    "deproj.pixel.build": "trains for minutes",
    "experiments/dashboard.py": "needs a W&B server (tests/training/test_loggers.py builds the dashboard)",
}
#: Settings with which a training is composed and checked only, and why.
ONLY_COMPOSED = {
    "hydra/launcher": "starts processes or SLURM jobs (tests/training/test_sweep.py runs them)",
    "trainer=ddp": "starts processes (tests/process/test_ranks.py runs them)",
    "logger=wandb": "starts W&B's service (tests/training/test_loggers.py runs it offline)",
}
#: Commands that are not even parsed, and why.
NOT_RUN = {
    "py -m venv .venv": "makes the environment that the tests run in",
    "source .venv/bin/activate": "changes the reader's shell",
    r".venv\Scripts\activate": "changes the reader's shell",
    "python -m pytest": "is what runs this",
    "pip install .": "installs (the wheel's test does)",
    "sbatch --signal=USR1@90": "needs SLURM",
}
#: What makes a training short; each replaces what the page says.
SMALL = {
    "data.size": "60", "data.held_out": "10", "data.batch_size": "20", "trainer.max_epochs": "1", "trainer.progress": "false",
    "render": "off", "evaluate": "0", "sd.steps": "2",
}  # fmt: skip

Main = Callable[[], Any]


class Parsed(Exception):
    """Raised in place of what a command would do after it has parsed its arguments."""


def main_of(program: str) -> Main:
    """The main function of a module, or of a script of the repository."""
    if not program.endswith(".py"):
        module = import_module(program)
        return (import_module(f"{program}.__main__") if hasattr(module, "__path__") else module).main
    spec = spec_from_file_location(Path(program).stem, ROOT / program)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def key(word: str) -> str:
    """Of ``key=value``."""
    return word.partition("=")[0]


def choices(override: str) -> list[str]:
    """The overrides that a sweep makes of one, or it alone."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    if not parsed.is_sweep_override():
        return [override]
    return [f"{key(override)}={value}" for value in parsed.sweep_string_iterator()]


class Commands:
    """Takes commands as a page shows them.

    Args:
        run: calls a main function with arguments and fails if it doesn't end with 0.
        parse: the same up to where the arguments are parsed.
        caches: folder of encoded samples.
    """

    def __init__(self, run: Callable[[Main, list[str]], None], parse: Callable[[Main, list[str]], None], caches: Path) -> None:
        self.run, self.parse, self.caches = run, parse, caches

    def __call__(self, command: str) -> None:
        command = command.replace(".venv\\Scripts\\python", "python")
        if command in NOT_RUN:
            return
        program, *words = shlex.split(command)
        if program == "python":
            program, words = (words[1], words[2:]) if words[0] == "-m" else (words[0], words[1:])
        if program == "deproj":
            self.run(main_of("deproj"), words)
        elif program in ONLY_PARSED:
            self.parse(main_of(program), words)
        elif treat := getattr(self, program.removeprefix("deproj."), None):
            treat(words)
        else:
            pytest.fail(f"say in tests/commands.py how this is tested: {command}")

    def make(self, targets: list[str]) -> None:
        """Treats the commands of the target's recipe, but for the tests themselves."""
        rules = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in targets:
            rule = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", rules, re.M)
            assert rule, f"the Makefile has no {target}"
            for line in re.findall(r"^\t\$\(BIN\)/(.+)$", rule[1], re.M):
                if not line.startswith("python -m pytest"):
                    self(line)

    def pip(self, words: list[str]) -> None:
        """Checks that the extras and files are there."""
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        for word in words[1:]:
            if named := re.fullmatch(r"(?:deproj|\.)\[([\w,]+)\]", word):
                assert set(named[1].split(",")) <= set(extras), word
            else:
                assert word in ("-c", "-e") or (ROOT / word).exists(), f"{word} is neither an extra of ours nor a file"

    def tensorboard(self, words: list[str]) -> None:
        assert find_spec("tensorboard"), words

    def generate(self, words: list[str]) -> None:
        self.run(main_of("deproj.generate"), [*words, "--sampler-steps", "2"])

    def report(self, words: list[str]) -> None:
        self.run(main_of("deproj.report"), [*words, "--seeds", "0"])

    def runs(self, words: list[str]) -> None:
        self.run(main_of("deproj.runs"), words or ["."])

    def evaluate(self, words: list[str]) -> None:
        here = {"SD_FOLDER": str(WEIGHTS), "CLIP_FOLDER": str(WEIGHTS / "clip")}
        small = ["RUN"] if "--baseline" in words else []  # whose few samples are taken, instead of 10,000
        self.run(main_of("deproj.evaluate"), [*(here.get(word, word) for word in words), *small, "--count", "2"])

    def train(self, words: list[str]) -> None:
        if "--help" in words or "resume=RUN" in words:
            self.run(main_of("deproj.train"), [*words, *(["trainer.max_epochs=2"] if "resume=RUN" in words else [])])
            return
        flags = [word for word in words if word.startswith("-")]
        swept = [choices(word) for word in words if not word.startswith("-")]
        if not any(flag.startswith("--config-dir") for flag in flags):
            self.compose(swept)
        if not any(word.startswith(tuple(ONLY_COMPOSED)) for word in words):
            self.run(main_of("deproj.train"), [*flags, *self.small(swept)])

    def compose(self, swept: list[list[str]]) -> None:
        """Checks every value of every override, beside the first ones of the others."""
        first = [values[0] for values in swept]
        for place, values in enumerate(swept):
            for value in values:
                config = compose_config([*first[:place], value, *first[place + 1 :]])
                RunSettings.of(config)
                settings(DataSettings, config["data"], "data")

    def small(self, swept: list[list[str]]) -> list[str]:
        """Overrides for the same training with little data, in the pixel world; of a sweep, two jobs."""
        changed = SMALL | {"data.cache": str(self.caches)}
        words: list[str] = []
        for values in swept:
            most = 2 if not any("," in word for word in words) else 1
            words.append(f"{key(values[0])}=" + ",".join(value.partition("=")[2] for value in values[:most]))
        if "sd=sd15" in words:  # the same code on weights that are here
            changed |= {"sd.path": str(WEIGHTS), "sd.clip": str(WEIGHTS / "clip")}
        if "experiment=sd15" in words:  # the whole recipe, with pictures and a CLIP score
            changed |= {"sd.path": str(WEIGHTS), "sd.clip": str(WEIGHTS / "clip"), "sd.cpu": "true", "sd.steps": "2"}
            changed |= {"data.prompts": "grammar", "data.column": "null", "model.hidden": "16", "objective.states_first": "1"}
        if any(key(word) == "hydra.sweeper.n_trials" for word in words):
            changed["hydra.sweeper.n_trials"] = "1"
        return [word for word in words if key(word) not in changed] + [f"{name}={value}" for name, value in changed.items()]


def until_parsed(patch: pytest.MonkeyPatch) -> None:
    """Makes argparse raise `Parsed` once it has parsed."""
    for owner, name in product((argparse.ArgumentParser, Parser), ("parse_args", "parse_intermixed_args")):
        parse = getattr(owner, name)

        def stop(self: argparse.ArgumentParser, *args: Any, parse: Any = parse) -> None:
            parse(self, *args)
            raise Parsed

        patch.setattr(owner, name, stop)
