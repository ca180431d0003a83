"""Settings that there aren't, and the ones that were likely meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from deproj.settings.described import described
from deproj.settings.shipped import GROUPS

__all__ = ["meant", "unknown", "without_dashes"]

#: What other programs call a setting, or one with its value.
ELSEWHERE = {
    "adam": ("optimizer.learning_rate",),
    "batch": ("data.batch_size",),
    "bf16": ("precision=bf16",),
    "captions": ("data.prompts",),
    "checkpoint": ("resume", "init_from"),
    "cosine": ("optimizer.schedule=cosine",),
    "cpu": ("trainer.accelerator=cpu",),
    "csv": ("logger=csv",),
    "data_dir": ("data.prompts",),
    "dataset": ("data.prompts",),
    "ddp": ("trainer=ddp",),
    "device": ("trainer.accelerator",),
    "dir": ("hydra.run.dir",),
    "epoch": ("trainer.max_epochs",),
    "epochs": ("trainer.max_epochs",),
    "file": ("data.prompts",),
    "fp16": ("precision",),
    "gpus": ("trainer.devices",),
    "grad_clip": ("trainer.gradient_clip_val",),
    "hidden_size": ("model.hidden",),
    "input": ("data.prompts",),
    "learning_rate": ("optimizer.learning_rate",),
    "lr": ("optimizer.learning_rate",),
    "max_grad_norm": ("trainer.gradient_clip_val",),
    "max_steps": ("trainer.max_epochs",),
    "mixed_precision": ("precision",),
    "num_epochs": ("trainer.max_epochs",),
    "num_samples": ("data.size",),
    "num_train_epochs": ("trainer.max_epochs",),
    "out": ("hydra.run.dir",),
    "out_dir": ("hydra.run.dir",),
    "output": ("hydra.run.dir",),
    "output_dir": ("hydra.run.dir",),
    "prompts": ("data.prompts",),
    "samples": ("data.size",),
    "scheduler": ("optimizer.schedule",),
    "steps": ("trainer.max_epochs", "sd.steps"),
    "tensorboard": ("logger=tensorboard",),
    "train_batch_size": ("data.batch_size",),
    "wandb": ("logger=wandb",),
}
#: So many known settings are listed at most.
LISTED = 15


def last(key: str) -> str:
    """The last part of a dotted key."""
    return key.rpartition(".")[2]


def meant(key: str, known: Iterable[str]) -> list[str]:
    """The settings that were likely meant by a key, the likeliest first."""
    known, bare = sorted(known), key.replace("-", "_").lower()
    if other := [name for name in ELSEWHERE.get(last(bare), ()) if name.partition("=")[0] in known and name != key]:
        return other
    if same := [name for name in known if last(name) == last(bare) and name != key]:
        return same[:3]
    if near := [name for name in get_close_matches(bare, known, 1, 0.7) if name != key and "." in name]:
        return near
    if near := get_close_matches(last(bare), {last(name) for name in known}, 1, 0.7):
        found = [name for name in known if last(name) == near[0] and name != key]
        return [name for name in found if name.count(".") == key.count(".")] or found[:3]
    return []


def unknown(key: str, known: Iterable[str]) -> str:
    """The message for a key that isn't there: what was meant, or the few that there are, or where all are listed."""
    known = list(known)
    whose = {choice for choice in setting.defaults if choice} if (setting := described().get(key)) else set()
    if whose and key.partition(".")[0] in GROUPS:
        group = key.partition(".")[0]
        return f"{key} is a setting of {' or '.join(f'{group}={choice}' for choice in sorted(whose))} alone; choose that too."
    if found := meant(key, known):
        return f"unknown setting {key!r}; did you mean {' or '.join(map(repr, found))}?"
    beside = sorted(name for name in known if name.rpartition(".")[0] == key.rpartition(".")[0]) if "." in key else sorted(known)
    if 0 < len(beside) <= LISTED:
        return f"unknown setting {key!r}; known are: {', '.join(beside)}."
    return f"unknown setting {key!r}; python -m deproj.train --help lists all."


def without_dashes(flags: Sequence[str], arguments: Sequence[str], known: Iterable[str]) -> str:
    """The message for arguments that begin with dashes and are no flags.

    Args:
        flags: those, one or more.
        arguments: of the command, where a value may follow the flag.
    """
    flag, known = flags[0], set(known)
    key, equals, value = flag.lstrip("-").partition("=")
    if not equals:
        after = arguments[list(arguments).index(flag) + 1 :][:1]
        value = after[0] if after and "=" not in after[0] and not after[0].startswith("-") else "..."
    found = [key] if key in known else meant(key, known)
    if not found:
        return f"there is no {flag.partition('=')[0]}; --help lists the settings, which are typed without dashes."
    return f"settings are typed without dashes: {' or '.join(name if '=' in name else f'{name}={value}' for name in found)}."
