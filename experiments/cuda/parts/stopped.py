"""Part 5: interrupted. SIGTERM in the middle of an epoch, resumed, against the undisturbed run; too little memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import torch
from shared import CUDA, SHORT, WORK, check, deproj, end, furthest, keep

from deproj.runs.folder import RunFolder

SIZE = 4000 if CUDA and not SHORT else 400
RUN = (f"data.size={SIZE}", "data.held_out=20", "data.batch_size=20", "trainer.max_epochs=2", "render=off", "evaluate=0")
RUN += (f"data.cache={WORK}/cache/samples", "trainer.progress=false", "seed=3")

OOM = """
import sys, torch
torch.cuda.set_per_process_memory_fraction(0.01)
from deproj.train import main
sys.argv = ["train", *sys.argv[1:]]
sys.exit(main())
"""


def interrupted() -> None:
    """Signalled once a few batches are done, and resumed."""
    command = [sys.executable, "-m", "deproj.train", "hydra.run.dir=disturbed", *RUN]
    with (WORK / "said").open("w", encoding="utf-8") as said:
        process = subprocess.Popen(command, cwd=WORK, stdout=said, stderr=said)
        run, start = RunFolder(WORK / "disturbed"), time.monotonic()
        while not run.metrics.exists() and process.poll() is None and time.monotonic() - start < 60:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGTERM)
        code = process.wait(60)
    keep("exit code after SIGTERM", code)
    check(code == 128 + signal.SIGTERM, f"SIGTERM in training ends with {128 + signal.SIGTERM}: {code}")
    check(run.last_checkpoint.exists(), "there is a checkpoint to go on from")
    deproj("train", "resume=disturbed")


def compare() -> None:
    """The final weights of both runs."""
    both = [torch.load(WORK / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("whole", "disturbed")]
    ours, theirs = (content["state_dict"] for content in both)
    far = max(furthest(ours[name], theirs[name]) for name in ours)
    keep("final weights, largest difference to the undisturbed run", far)
    check(far <= (1e-5 if CUDA else 0.0), f"resumed weights differ by {far:.1e}")


def too_little_memory() -> None:
    """A hundredth of the card, and a large batch."""
    if not CUDA:
        keep("too little memory", "not tried: there is no card")
        return
    arguments = ["hydra.run.dir=large", "data.size=4000", "data.batch_size=4000", "data.held_out=20", "render=off", "evaluate=0"]
    arguments += [f"data.cache={WORK}/cache/samples", "trainer.progress=false"]
    ended = subprocess.run([sys.executable, "-c", OOM, *arguments], cwd=WORK, capture_output=True, text=True)
    keep("too little memory", ended.stderr[-400:])
    check(ended.returncode == 1 and "data.batch_size=4000" in ended.stderr, "it is told in a line that names data.batch_size")
    check("Traceback" not in ended.stderr, "without a traceback")
    left = [path.name for path in (WORK / "large").rglob("*") if path.suffix in (".tmp", ".ckpt", ".safetensors")]
    check(not left, f"nothing half-written stays: {left}")


deproj("train", "hydra.run.dir=whole", *RUN)
interrupted()
compare()
too_little_memory()
end()
