"""Part 1: it works. `make train`'s run, its model read back, its pictures and the encoder's states, against the CPU's."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import inner
import torch
from common import CARD, OUT, SHORTEST, WORK, Command, Part, pick

DEVICE = "cuda" if CARD else "cpu"
PROMPTS = pick(200, 4, 2)
TEXTS = pick(300, 30, 10)
STEPS = pick([], [], ["sd.steps=2"])  # of a picture; by default twenty
SIZE = pick(
    [],
    ["data.size=800", "trainer.max_epochs=2"],
    ["data.size=60", "data.held_out=10", "data.batch_size=20", "trainer.max_epochs=1"],
)


#: Of the two computations on the CPU that go on beside those on the card.
THREADS = pick(7, None, None)


def first(where: str, *settings: str, cpu: bool = False) -> Command:
    """`make train`'s run, without the measuring."""
    usual = ["experiment=first", "evaluate=0", "trainer.progress=false", *SIZE, *STEPS]
    own = [f"data.cache={WORK}/cache-{where}/samples", f"hydra.run.dir={WORK}/{where}"]
    return Command("deproj.train", *usual, *own, *settings, cpu=cpu, threads=THREADS if cpu else None)


def result_of(where: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((WORK / where / "result.json").read_text(encoding="utf-8"))
    return result


def training(part: Part) -> None:
    ended = first("first").wait().whole()
    result = result_of("first")
    part.note("make train", {"seconds": ended.seconds, "peak MiB": ended.peak_mib} | result)
    drawn = sorted(path.name for path in (WORK / "first" / "sheets").glob("epoch-*.png"))
    part.check("a sheet every epoch", len(drawn) == result["epochs"], f"{len(drawn)} sheets, {result['epochs']} epochs")
    shutil.copyfile(WORK / "first" / "sheets" / "best.png", OUT / "sheet.png")


def twin() -> Command:
    """The same run on the CPU, which draws nothing."""
    return first("first-cpu", "render=off", cpu=True)


def same_loss(part: Part, running: Command | None) -> None:
    """Compares the run with its twin, which is awaited last, since it takes longest."""
    if SHORTEST:
        part.skip("the loss is the CPU's to 2 %", "without a card both would be the same run")
        return
    (running or twin()).wait().whole()
    result, of_cpu = result_of("first"), result_of("first-cpu")
    off = abs(result["val_loss"] / of_cpu["val_loss"] - 1)
    said = f"{DEVICE} {result['val_loss']:.5f}, CPU {of_cpu['val_loss']:.5f}: {off:.2%} apart"
    part.check("the loss is the CPU's to 2 %", off <= 0.02, said)
    part.note("make train on the CPU", of_cpu)


def read_back(part: Part, model: Path) -> None:
    """One model on both devices. Relative, since rounding grows over 76 places; in float64 that can't hide a fault."""
    for dtype, bar in ((torch.float32, 1e-4), (torch.float64, 1e-10)):
        there, here = (inner.generated(model, pick(50, 50, 5), device, dtype) for device in (DEVICE, "cpu"))
        off, largest = float((there - here).norm() / here.norm()), float((there - here).abs().max())
        said = f"‖{DEVICE} - CPU‖ / ‖CPU‖ = {off:.1e}, largest difference {largest:.1e}"
        part.check(f"the model read back on a CPU, {str(dtype).partition('.')[2]}", off <= bar, said)


def states(part: Part) -> None:
    exact = inner.states(TEXTS, "cpu", "fp32")
    found: dict[str, float] = {}
    for kind in ("fp32", "bf16", "fp16") if CARD else ("fp32", "bf16"):
        found[kind] = float((inner.states(TEXTS, DEVICE, kind) - exact).abs().max())
    part.note(f"largest difference of the states of {TEXTS} prompts to the CPU's fp32", found)
    part.check("states in fp32 are the CPU's to 1e-3", found["fp32"] <= 1e-3, f"{found['fp32']:.1e}")


def main_numbers(evaluation: dict[str, Any]) -> dict[str, float]:
    return {
        f"{kind} {name}": evaluation[kind][name]["value"]
        for kind in ("single", "composed")
        for name in ("fidelity", "conditioning_error")
        if evaluation[kind].get(name, {}).get("value") is not None
    }


def pictures(part: Part, model: Path) -> None:
    """Fidelity and conditioning error of pictures in float32 and float16, against the CPU's."""
    # The model alone is drawn with the steps that are usual; its run knows of others.
    alone = Path(shutil.copytree(model.parent if STEPS else model, WORK / "exported"))
    of_cpu = Command("deproj.evaluate", str(alone), "--count", str(PROMPTS), cpu=True, threads=THREADS)
    with part.step("states"):
        states(part)
    with part.step("read back"):
        read_back(part, model)
    found: dict[str, dict[str, float]] = {}
    if not CARD:
        part.skip("pictures in float16", "there is no card here")
    for half in (False, True) if CARD else (False,):
        kind = f"{DEVICE} {'fp16' if half else 'fp32'}"
        with part.step(f"pictures, {kind}"):
            found[kind] = main_numbers(inner.evaluation(model, PROMPTS, DEVICE, half, WORK / f"worlds-{half}", STEPS))
    of_cpu.wait().whole()
    exact = main_numbers(json.loads((alone / "evaluation.json").read_text(encoding="utf-8")))
    part.note(f"pictures of {PROMPTS} prompts", found | {"CPU fp32": exact})
    for kind, numbers in found.items():
        apart = {name: abs(numbers[name] - value) for name, value in exact.items()}
        well = all(value <= (0.02 if "fidelity" in name else 0.05 * abs(exact[name])) for name, value in apart.items())
        said = ", ".join(f"{name} {value:.1e} apart" for name, value in apart.items())
        part.check(f"pictures in {kind} are worth the CPU's", well, said)


def main() -> int:
    part = Part()
    running = twin() if CARD else None  # without one both would only wait for one another
    with part.step("training"):
        training(part)
    with part.step("pictures"):
        pictures(part, WORK / "first" / "deprojector")
    with part.step("the loss"):
        same_loss(part, running)
    return part.end()


if __name__ == "__main__":
    sys.exit(main())
