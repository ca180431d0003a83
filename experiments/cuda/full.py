"""Part 3: at full size. Random weights in Stable Diffusion 1.5's shapes: an epoch's first 200 steps, and pictures."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import inner
import torch
from common import CARD, OUT, WORK, Command, Part, pick
from PIL import Image

STEPS = pick(200, 6, 2)
BATCH, HELD_OUT = pick(100, 10, 10), pick(200, 10, 10)
#: Through the U-Net a step takes more memory, and a held-out sample a whole way to its picture.
FEWER = {"batch": pick(48, 4, 4), "held_out": 4}
DEVICE = "cuda" if CARD else "cpu"
FOLDER = WORK / "full"
SD = ["sd=sd15", f"sd.path={FOLDER}/sd", f"sd.clip={FOLDER}/clip", "data.prompts=grammar", f"sd.cpu={str(not CARD).lower()}"]
ONCE = ["trainer.max_epochs=1", "trainer.progress=false", "render=off", "evaluate=0"]
OBJECTIVES = Path(__file__).resolve().parents[2] / "conf" / "objective"


def make(part: Part) -> None:
    start = time.perf_counter()
    if CARD:
        Command("deproj.fullsize", str(FOLDER)).wait().whole()
    else:
        from deproj.fullsize import make

        make(FOLDER, inner.small_shapes())
    part.note("random weights written", {"seconds": time.perf_counter() - start})


def train(part: Part, name: str, *settings: str, steps: int = STEPS, batch: int = BATCH, held_out: int = HELD_OUT) -> None:
    """Trains some steps; notes what that took."""
    run = WORK / "runs" / name.replace(" ", "-").replace("=", "-")
    size = [f"data.size={steps * batch}", f"data.held_out={held_out}", f"data.batch_size={batch}"]
    size += [f"data.cache={WORK}/cache-full/samples"]
    ended = Command("deproj.train", *SD, *ONCE, *size, *settings, f"hydra.run.dir={run}").wait().whole()
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    phases = result["phases"]
    found = {"steps": steps, "batch": batch, "phases": phases, "seconds a step": phases["training"] / steps}
    found |= {"whole command, s": ended.seconds, "peak MiB": ended.peak_mib, "machine": result["machine"]}
    part.note(name, found)


def pictures(part: Part, half: bool) -> None:
    """Six pictures at once, timed with the second drawing."""
    from deproj.settings.compose import compose_config
    from deproj.texts.benchmark import PROMPTS

    config = compose_config([*SD, f"sd.steps={pick(20, 2, 1)}"])
    encoder = inner.encoder(config, DEVICE)
    renderer = inner.renderer(config, encoder, DEVICE, half)
    states = encoder(PROMPTS).states
    renderer(states[:1], [0])
    if CARD:
        torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    drawn = renderer(states, range(len(states)))
    found: dict[str, Any] = {"pictures": len(drawn), "side": drawn.shape[1], "seconds": time.perf_counter() - start}
    if CARD:
        found["peak MiB"] = torch.cuda.max_memory_allocated() / 2**20
    part.note(f"pictures in {'fp16' if half else 'fp32'}", found)
    spread = float(drawn.float().std())
    part.check(f"pictures in {'fp16' if half else 'fp32'} are no single colour", spread > 0, f"standard deviation {spread:.1f}")
    if half == CARD:
        Image.fromarray(torch.cat(list(drawn), 1).numpy()).resize((1536, 256)).save(OUT / "pictures.png")


def objectives(part: Part) -> None:
    """Some steps of every objective that there is."""
    for name in sorted(path.stem for path in OBJECTIVES.glob("*.yaml")):
        own = {"conditioning": ["objective.checkpointing=true"]}.get(name, [])
        with part.step(f"objective={name}"):
            train(part, f"objective {name}", f"objective={name}", *own, "precision=bf16", steps=pick(20, 2, 2), **FEWER)


def main() -> int:
    part = Part()
    with part.step("random weights"):
        make(part)
    graphs = ["trainer.cuda_graphs=true"] if CARD else []
    with part.step("training, states kept"):
        train(part, "keep=states", "data.keep=states", "precision=bf16", *graphs)
    with part.step("pictures in fp16"):
        if CARD:
            pictures(part, True)
        else:
            part.skip("pictures in fp16", "there is no card here")
    with part.step("pictures in fp32"):
        pictures(part, False)
    with part.step("training, tokens kept"):
        train(part, "keep=tokens", "data.keep=tokens", "precision=bf16", *graphs)
    objectives(part)
    return part.end()


if __name__ == "__main__":
    sys.exit(main())
