"""What a run would do, told without doing it."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from deproj.data.settings import DataSettings
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.training.settings import RunSettings

if TYPE_CHECKING:
    from deproj.training.parts import Parts

__all__ = ["tell_plan"]


def tell_plan(config: dict[str, Any], path: Path | None) -> None:
    """Prints captions, samples, cache, model and folder of a run, which is neither begun nor continued.

    Args:
        config: resolved and settled settings.
        path: folder of the run; None for a new one, named by the time.

    Raises:
        UserError: for what would stop the run before its first sample is encoded.
    """
    folder = RunFolder(path or Path("runs"))
    chosen, data = RunSettings.of(config), DataSettings.of(config)
    if path is not None and (done := folder.finished(chosen.trainer.max_epochs)):
        print(f"{path} is done (held-out loss {done.val_loss:.4f}); nothing would be done.")
        return
    with TemporaryDirectory() as kept:  # where captions that are read slowly would be kept
        source = replace(data, cache=kept).source()
        # torch takes seconds to import: a mistake in the settings is told before
        from deproj.training.checkpoints import Behind
        from deproj.training.parts import Parts, measured_prompts
        from deproj.training.place import Place
        from deproj.training.same_captions import check_captions, tell_of_strange_words

        quiet_libraries()
        place = Place.of(chosen, data.batch_size, None)
        before = Behind.of(folder.last_checkpoint) if path is not None else Behind()
        parts = Parts.of(config, chosen, place, data, source, before)
        if parts.data.source.said is None:
            print("Captions: the pixel world's own.")
        check_captions(parts.data.source, folder, before.steps)
        tell_of_strange_words(parts.data.source, StableDiffusion(chosen.sd), parts.encoder.inversions)
        measured_prompts(parts.data.source, chosen.evaluate)  # which tells where there are too few
        planned = parts.data.planned()
        encoding, training = seconds(parts, data)
    steps = -(-data.size // data.batch_size)
    print(f"Samples: {data.size:,} to train on and {data.held_out:,} held out, {steps:,} step{'s' * (steps != 1)} an epoch.")
    for name, cache in planned.items():
        count = data.size if name == "samples" else data.held_out
        there = "is there already" if cache.there else f"would be made in about {span(encoding * count)}"
        print(f"Cache of the {name}: {cache.folder}, {size(cache.bytes)}, {there}.")
    count = sum(parameter.numel() for parameter in parts.model.parameters() if parameter.requires_grad)
    print(f"Model: {config['choices']['model']}, {count:,} parameters to train, on {place.device}, precision {place.precision}.")
    print(f"Time: about {span(steps * training)} an epoch, by two steps that were tried; pictures and measures come on top.")
    print(f"Folder: {'a new one in runs/, named by the time' if path is None else path}.")
    behind = f", {before.epochs} of them behind it" if before.epochs else ""
    most = chosen.trainer.max_epochs
    print(f"It would train for at most {most} epoch{'s' * (most != 1)}{behind}. Nothing was trained or written.")


def seconds(parts: Parts, data: DataSettings) -> tuple[float, float]:
    """Of encoding a sample, and of a step of training, by trying both on one batch."""
    import torch  # see above

    from deproj.data.cache import encode, tokens_of
    from deproj.training.objective.conditioning import ThroughUNet

    device, module = parts.encoder.model.device, parts.module.to(parts.encoder.model.device)
    if isinstance(module.objective, ThroughUNet):
        module.objective.done = module.objective.states_first  # its own steps, which are the slow ones
    dtype = module.model.sos.dtype
    samples = list(parts.data.mix.samples(parts.data.source, min(data.batch_size, data.size), data.seed))
    spans = []
    for _ in range(2):  # the first of everything is slower
        began = time.monotonic()
        rows = encode(tokens_of(samples, parts.encoder)[0], parts.encoder)
        encoded = time.monotonic()
        rows = rows._replace(states=rows.states.to(dtype), embedding=rows.embedding.to(dtype))
        if parts.data.latents is not None:
            wholes = [sample.whole for sample in samples]
            rows = rows._replace(latents=torch.from_numpy(parts.data.latents.of(wholes, 0)).to(device, dtype))
        drawn = time.monotonic()
        module.objective.loss(module.learner, rows).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()  # what was asked of it is done only then
        spans.append(((encoded - began) / len(samples), time.monotonic() - drawn))
    return min(span[0] for span in spans), min(span[1] for span in spans)


def span(seconds: float) -> str:
    """Seconds as a person says them."""
    for unit, each in (("hour", 3600), ("minute", 60)):
        if seconds >= 1.5 * each:
            return f"{seconds / each:.0f} {unit}s" if seconds >= 9.5 * each else f"{seconds / each:.1f} {unit}s"
    return f"{max(seconds, 1):.0f} second{'s' * (round(max(seconds, 1)) != 1)}"


def size(count: int) -> str:
    """Bytes as a person reads them."""
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= each:
            return f"{count / each:.1f} {unit}"
    return f"{count} bytes"
