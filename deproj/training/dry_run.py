"""What a run would do, told without doing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deproj.data.settings import DataSettings
from deproj.process.quiet import quiet_libraries
from deproj.runs.folder import RunFolder
from deproj.training.settings import RunSettings

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
        from deproj.training.same_captions import check_captions

        quiet_libraries()
        place = Place.of(chosen, data.batch_size, None)
        before = Behind.of(folder.last_checkpoint) if path is not None else Behind()
        parts = Parts.of(config, chosen, place, data, source, before)
        if parts.data.source.said is None:
            print("Captions: the pixel world's own.")
        check_captions(parts.data.source, folder, before.steps)
        measured_prompts(parts.data.source, chosen.evaluate)  # which tells where there are too few
        planned = parts.data.planned()
    steps = -(-data.size // data.batch_size)
    print(f"Samples: {data.size:,} to train on and {data.held_out:,} held out, {steps:,} step{'s' * (steps != 1)} an epoch.")
    for name, cache in planned.items():
        there = "is there already" if cache.there else "would be made"
        print(f"Cache of the {name}: {cache.folder}, {size(cache.bytes)}, {there}.")
    count = sum(parameter.numel() for parameter in parts.model.parameters() if parameter.requires_grad)
    print(f"Model: {config['choices']['model']}, {count:,} parameters to train, on {place.device}, precision {place.precision}.")
    print(f"Folder: {'a new one in runs/, named by the time' if path is None else path}.")
    behind = f", {before.epochs} of them behind it" if before.epochs else ""
    most = chosen.trainer.max_epochs
    print(f"It would train for at most {most} epoch{'s' * (most != 1)}{behind}. Nothing was trained or written.")


def size(count: int) -> str:
    """Bytes as a person reads them."""
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= each:
            return f"{count / each:.1f} {unit}"
    return f"{count} bytes"
