"""The training loop of the pixel world's parts: resumable at any step, the same from the same seed."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from deproj.process.files import replacing

__all__ = ["LossOf", "Rng", "cosine", "fit", "late_fall"]

Rng = np.random.Generator
#: (module, random numbers of this step, number of this step) to a scalar.
LossOf = Callable[[nn.Module, Rng, int], Tensor]


def late_fall(step: int, steps: int) -> float:
    """Share of the top learning rate: 100 steps of warm-up, constant, a linear fall over the last quarter."""
    return min(1.0, (step + 1) / 100, (steps - step) / (0.25 * steps))


def cosine(step: int, steps: int) -> float:
    """Share of the top learning rate: 100 steps of warm-up, half a cosine from 1 to 0 over all steps."""
    return min((step + 1) / 100, (1 + math.cos(math.pi * step / steps)) / 2)


def fit(
    name: str,
    module: nn.Module,
    loss_of: LossOf,
    steps: int,
    top_rate: float,
    folder: Path,
    decay: float = 0.998,
    weight_decay: float = 0.01,
    schedule: Callable[[int, int], float] = late_fall,
) -> Any:
    """Trains a module and returns it with the exponential moving average of its weights.

    Args:
        name: of the stage; its checkpoint is ``folder/name.pt``.
        loss_of: a step's loss. The random numbers depend on the step alone, and torch's generator is seeded from them, so a
            resumed run repeats nothing.
        decay: of the moving average.
        schedule: (step, steps) to the share of the top learning rate.
    """
    path = folder / f"{name}.pt"
    average = {key: value.detach().clone() for key, value in module.state_dict().items()}
    optimizer = torch.optim.AdamW(module.parameters(), top_rate, betas=(0.9, 0.98), weight_decay=weight_decay)
    start = 0
    if path.exists():
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        module.load_state_dict(saved["module"])
        optimizer.load_state_dict(saved["optimizer"])
        average = {key: value.to(average[key].device) for key, value in saved["average"].items()}
        start = saved["step"]

    def save(step: int) -> None:
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "average": average, "step": step}
        with replacing(path) as temporary:
            torch.save(state, temporary)

    stopped = False

    def stop(*_: object) -> None:
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGTERM, stop)
    module.train()
    running = None
    bar = tqdm(range(start, steps), desc=name, initial=start, total=steps, mininterval=5, dynamic_ncols=True)
    for step in bar:
        rng = np.random.default_rng([step, sum(name.encode())])
        torch.manual_seed(int(rng.integers(2**62)))
        for group in optimizer.param_groups:
            group["lr"] = top_rate * schedule(step, steps)
        loss = loss_of(module, rng, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        weight = 1 - min(decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    average[key].lerp_(value, weight)
                else:
                    average[key].copy_(value)
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        bar.set_postfix(loss=f"{running:.4f}", refresh=False)
        if stopped or (step + 1) % 100 == 0 or step + 1 == steps:
            save(step + 1)
        if stopped:
            raise SystemExit(f"Stopped at step {step + 1} of {name}; the same command goes on from there.")
    signal.signal(signal.SIGTERM, before)
    module.load_state_dict(average)
    return module.eval()
