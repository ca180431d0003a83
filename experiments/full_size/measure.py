"""What Stable Diffusion's size takes, on random weights: ``python experiments/full_size/measure.py FOLDER``.

Makes the full-size folders, trains a few steps on them, draws a picture, times the parts, evaluates the run and tries a step of
four samples of each objective, each a command of its own in FOLDER, and prints the time and peak memory of each. FOLDER gets
3.2 GB; what is there already is not made again. ``measure.py FOLDER make states conditioning attention`` does these alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

PARTS = """
import json, time
from pathlib import Path
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from deproj.bench import Training
from deproj.clip.encoder import TextEncoder
from deproj.feed import Recursive
from deproj.selection import EosOnward

def timed(name, run, flops=None):
    if flops is None:
        with FlopCounterMode(display=False) as counter:
            run()
        flops = counter.get_total_flops()
    start = time.process_time()
    run()
    found[name] = {"seconds": time.process_time() - start, "GFLOP": flops / 1e9}
    print(name, found[name])

found = {}
encoder = TextEncoder.from_pretrained("full/sd")
timed("ten texts encoded", lambda: encoder(["1girl, red hair"] * 10))
step, flops, count = Training("real", "cpu").step(EosOnward(), Recursive(), half=False)
timed(f"{count} training steps", step, flops * count)
with torch.no_grad():
    load = {"torch_dtype": torch.float32}
    vae = AutoencoderKL.from_pretrained("full/sd", subfolder="vae", **load)
    timed("a picture decoded", lambda: vae.decode(torch.zeros(1, 4, 64, 64)))
    unet = UNet2DConditionModel.from_pretrained("full/sd", subfolder="unet", **load)
    timed("the U-Net once", lambda: unet(torch.zeros(1, 4, 64, 64), 1, encoder.empty.states))
Path("parts.json").write_text(json.dumps(found))
"""
OBJECTIVES = ("states", "conditioning", "attention")
STEP = [
    *("-m", "deproj.train", "--dry-run", "sd=sd15", "sd.path=full/sd", "sd.clip=full/clip", "data.prompts=grammar"),
    *("data.size=4", "data.held_out=1", "data.batch_size=4", "data.cache=none", "evaluate=0", "render=off"),
]
COMMANDS: dict[str, list[str]] = {
    "make": ["-m", "deproj.fullsize", "full"],
    "train": [
        *("-m", "deproj.train", "sd=sd15", "sd.path=full/sd", "sd.clip=full/clip", "sd.cpu=true", "sd.steps=2"),
        *("data.prompts=grammar", "data.size=500", "data.held_out=20", "trainer.max_epochs=1"),
        *("trainer.progress=false", "render=off", "evaluate=0", "hydra.run.dir=run"),
    ],
    "picture": ["-m", "deproj.generate", "run", "cat, maid", "--out", "pictures"],
    "parts": ["-c", PARTS],
    "evaluate": ["-m", "deproj.evaluate", "run", "--count", "2"],
    **{name: [*STEP, f"objective={name}"] for name in OBJECTIVES},
}
MADE = {
    "make": "full",
    "train": "run/result.json",
    "picture": "pictures/001-cat-maid.png",
    "parts": "parts.json",
    "evaluate": "run/evaluation.json",
}


def main() -> None:
    folder, chosen = Path(sys.argv[1]), sys.argv[2:] or list(COMMANDS)
    folder.mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")]))
    print("| command | seconds | of the processor's time | peak memory, GB |\n|---|---|---|---|", flush=True)
    for name in chosen:
        arguments = COMMANDS[name]
        if name in MADE and (folder / MADE[name]).exists():
            continue
        start = time.monotonic()
        with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": path}, stdout=log, stderr=log
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{name} failed: {folder / name}.log")
        wall, cpu = time.monotonic() - start, used.ru_utime + used.ru_stime
        print(f"| {name} | {wall:.0f} | {cpu:.0f} | {used.ru_maxrss * 1024 / 1e9:.1f} |", flush=True)
        if name in OBJECTIVES:  # an epoch of these is one step
            said = (folder / f"{name}.log").read_text(encoding="utf-8")
            print(*(f"| {line} | | | |" for line in said.splitlines() if line.startswith("Time:")), flush=True)


if __name__ == "__main__":
    main()
