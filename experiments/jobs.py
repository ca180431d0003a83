"""Trains and measures what the experiments compare: ``python experiments/jobs.py [EXPERIMENT...]`` (all of them by default).

A job is one run, or one baseline. It works in ``sweeps/EXPERIMENT/NAME``; its settings and measures are kept in
``experiments/EXPERIMENT/runs/NAME``. What was measured there in today's world isn't done again, and a run that was stopped goes
on where it was, so the command can be given again at any time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from kept import EXPERIMENTS, SELECTIONS, world_of

from deproj.process.errors import UserError, run_command
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder

SWEEPS = Path("sweeps")
#: Half a million parameters, of `experiment=small`.
SMALL = ("model=residual", "model.hidden=128", "model.blocks=3", "model.rank=16")
#: 6.2 million, of `experiment=best`.
LARGE = ("model=residual", "model.hidden=384", "model.blocks=4")
#: 1,250 steps on states and 417 through the U-Net. One of these takes 20 to 50 times as long as one of the small model on
#: states, by the processor, and `STATES` is for 50, so that those on states have at least as much time anywhere.
THROUGH = ("objective.states_first=1250", "trainer.max_epochs=4")
STATES = 54
#: What is searched: a model's settings, and its epochs on states, in at least as much time as `THROUGH` takes.
SEARCHED = {
    "small": (SMALL, STATES),
    "small-one-state": ((*SMALL[:-1], "model.rank=1"), STATES),
    "large": (LARGE, 34),
    "mlp": (("model=mlp", "model.hidden=512"), 34),
    "lstm": (("model=lstm",), 11),
    "lstm-wide": (("model=lstm", "model.hidden=512"), 5),
    "transformer": (("model=transformer",), 11),
}
KEPT = ("config.yaml", "evaluation.json", "evaluation-mean.json", "metrics.csv", "result.json", "baseline.json")


@dataclass(frozen=True)
class Job:
    """A run or a baseline.

    Attributes:
        experiment: its folder in `experiments` and in `sweeps`.
        settings: of a run; of a baseline the options of `deproj.evaluate`.
        needs: the job whose model it starts from.
        mean: whether it is measured once more, with composed prompts as means.
        clip_skip: of its world.
    """

    experiment: str
    name: str
    settings: tuple[str, ...]
    needs: Job | None = None
    mean: bool = False
    clip_skip: int = 1

    @property
    def label(self) -> str:
        return f"{self.experiment}/{self.name}"

    @property
    def folder(self) -> RunFolder:
        return RunFolder(SWEEPS / self.experiment / self.name)

    @property
    def kept(self) -> RunFolder:
        return RunFolder(EXPERIMENTS / self.experiment / "runs" / self.name)

    def measured(self) -> bool:
        """Whether its measures are kept, of today's world."""
        world = world_of(self.clip_skip)
        return all(
            path.is_file() and self.kept.read_evaluation(mean).world == world
            for mean in (False, True)[: 1 + self.mean]
            for path in [self.kept.evaluation(mean)]
        )

    @property
    def trained(self) -> bool:
        return self.folder.finished() is not None and self.folder.model.is_dir()

    def commands(self) -> Iterator[list[str]]:
        """What is left to run, each after ``python -m``."""
        where = self.folder.path.as_posix()
        if self.settings[0] == "--baseline":
            yield ["deproj.evaluate", *self.settings, "--out", where]
            return
        if not self.trained:
            own = [f"resume={where}"] if self.folder.last_checkpoint.is_file() else [*self.settings, f"hydra.run.dir={where}"]
            yield ["deproj.train", *own, "hydra.mode=RUN", "evaluate=0"]
        yield ["deproj.evaluate", where]
        if self.mean:
            yield ["deproj.evaluate", where, "--compose-mean"]

    def keep(self) -> None:
        """Copies settings and measures to where they are kept."""
        self.kept.path.mkdir(parents=True, exist_ok=True)
        for name in KEPT:
            (self.kept.path / name).unlink(missing_ok=True)
            if (self.folder.path / name).is_file():
                shutil.copyfile(self.folder.path / name, self.kept.path / name)


def jobs(seeds: int) -> Iterator[Job]:
    """All jobs, those of one seed after those of another, so that what is there at any time can be compared."""
    for kind, selections in (("mean", SELECTIONS), ("ridge", SELECTIONS), ("broadcast", ("all",)), ("nearest", ("all",))):
        for selection in selections:
            if selection != "words_eos":  # its states stand in the order of all
                yield Job("baselines", f"{kind}-{selection}", ("--baseline", kind, "--selection", selection))
    for seed in range(seeds):
        for feed, experiment in (("batch", "ignored_states"), ("recursive", "recursive_input")):
            for selection in SELECTIONS:
                settings = (f"experiment={experiment}", f"selection={selection}", f"feed={feed}", f"seed={seed}")
                job = Job(
                    experiment, f"{selection}-{feed}-{seed}", settings, mean=(selection, feed) == ("eos_onward", "recursive")
                )
                yield job
                if (selection, feed) == ("eos_onward", "batch"):
                    yield Job("recursive_input", f"eos_onward-further-{seed}", ("experiment=further", f"seed={seed}"), needs=job)
        yield Job("composition", f"eos_onward-recursive-unmixed-{seed}", ("experiment=composition", f"seed={seed}"))
        yield Job("clip_skip", f"eos_onward-recursive-skip-2-{seed}", ("experiment=clip_skip", f"seed={seed}"), clip_skip=2)
        for selection in ("all", "eos_onward"):
            for hidden in ("null", "512"):
                settings = ("experiment=baselines", f"selection={selection}", f"model.hidden={hidden}", f"seed={seed}")
                yield Job("baselines", f"{selection}-{hidden.replace('null', 'None')}-{seed}", settings)
        yield from past_the_article(seed)
        yield from model_search(seed)


def past_the_article(seed: int) -> Iterator[Job]:
    """A small model on states and through the U-Net, six to twelve minutes of one thread each, and what it is compared to."""
    folder, common = "past_the_article", ("experiment=past_the_article", f"seed={seed}")
    for selection in SELECTIONS:
        for objective, length in (("states", (f"trainer.max_epochs={STATES}",)), ("conditioning", THROUGH)):
            settings = (*common, *SMALL, f"objective={objective}", f"selection={selection}", *length)
            yield Job(folder, f"{objective}-{selection}-{seed}", settings)
    drawn = ("objective=conditioning", *THROUGH, "data.pictures=scenes")
    yield Job(folder, f"pictures-{seed}", (*common, *SMALL, *drawn))
    yield Job(folder, f"large-{seed}", (*common, *LARGE, "trainer.max_epochs=34"))
    settings = ("experiment=recursive_input", "selection=eos_onward", "feed=recursive", "data.parts=5", f"seed={seed}")
    yield Job(folder, f"five-{seed}", settings)


def model_search(seed: int) -> Iterator[Job]:
    """Every model on states and through the U-Net, the small one by other objectives too; not what `past_the_article` has."""
    objectives = {
        "conditioning": ("objective=conditioning", *THROUGH),
        "attention": ("objective=attention", *THROUGH),
        "both": ("objective=conditioning", "objective.states=0.1", *THROUGH),
    }
    for model, (own, epochs) in SEARCHED.items():
        by_objective = {"states": (f"trainer.max_epochs={epochs}",)} | objectives
        wanted = {"small": ("attention", "both"), "large": ("conditioning",)}.get(model, ("states", "conditioning"))
        for objective in wanted:
            settings = ("experiment=past_the_article", f"seed={seed}", *own, *by_objective[objective])
            yield Job("model_search", f"{model}-{objective}-{seed}", settings)


def chosen(every: list[Job], patterns: list[str]) -> list[Job]:
    """The jobs that patterns name, in their order; without any, all.

    Raises:
        UserError: for a pattern that names none.
    """
    if not patterns:
        return every
    found: dict[str, Job] = {}
    for pattern in patterns:
        named = {job.label: job for job in every if fnmatchcase(job.label, pattern if "/" in pattern else f"{pattern}/*")}
        if not named:
            raise UserError(f"no job is called {pattern}; one is {every[0].label}, and --list lists them.")
        found |= {label: job for label, job in named.items() if label not in found}
    return list(found.values())


def with_needs(wanted: list[Job], weights: bool) -> list[Job]:
    """The jobs that aren't measured, each after the one that it starts from, if that isn't trained here.

    Args:
        weights: also those whose model isn't here.
    """
    left: dict[str, Job] = {}
    for job in wanted:
        if job.measured() and (job.trained or not weights or job.settings[0] == "--baseline"):
            continue
        if job.needs is not None and not job.needs.trained:
            left[job.needs.label] = job.needs
        left[job.label] = job
    return list(left.values())


def do(job: Job, threads: int) -> float:
    """Runs what is left of a job, its output in ``job.log`` beside its folder; returns the seconds.

    Raises:
        UserError: where a command fails.
    """
    began, environment = time.monotonic(), os.environ | {"OMP_NUM_THREADS": str(threads)}
    log = job.folder.path.parent / f"{job.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    for command in job.commands():
        with log.open("a", encoding="utf-8") as file:
            code = subprocess.run([sys.executable, "-m", *command], stdout=file, stderr=file, env=environment).returncode
        if code:
            last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise UserError(f"{job.label} failed: {' '.join(last)} ({log})")
    job.keep()
    return time.monotonic() - began


def work(left: list[Job], workers: int) -> None:
    """Runs jobs, some at once, each when the one that it needs is done."""
    threads = max((os.cpu_count() or 1) // workers, 1)
    waiting, running, done = list(left), dict[Future[float], Job](), 0
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            at_work = [job.label for job in (*running.values(), *waiting)]
            ready = [job for job in waiting if job.needs is None or job.needs.label not in at_work]
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                running[pool.submit(do, job, threads)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, done = running.pop(future), done + 1
                try:
                    print(f"[{done}/{len(left)}] {job.label}: {future.result():.0f} s", flush=True)
                except UserError:
                    waiting.clear()  # what runs is waited for
                    raise


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    told = "only these, in this order: an experiment, or EXPERIMENT/NAME with *"
    parser.add_argument("experiments", nargs="*", metavar="EXPERIMENT", help=told)
    parser.add_argument("--seeds", type=int, default=5, help="training seeds of each setting (5)")
    parser.add_argument("--workers", type=int, default=2, help="jobs at once; they share the cores (2)")
    parser.add_argument("--weights", action="store_true", help="also train what is measured but whose model isn't here")
    parser.add_argument("--list", action="store_true", help="only list what is left")
    args = parser.parse_args()
    quiet_libraries()

    def command() -> None:
        wanted = chosen(list(jobs(args.seeds)), args.experiments)
        left = with_needs(wanted, args.weights)
        print(f"{len(wanted)} jobs, {len(left)} to do.", flush=True)
        if args.list:
            print("\n".join(job.label for job in left))
        else:
            work(left, args.workers)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
