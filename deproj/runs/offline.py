"""W&B runs that are stored offline, and whether they were sent."""

from __future__ import annotations

from pathlib import Path

__all__ = ["offline_runs", "was_sent"]


def offline_runs(folder: Path) -> list[Path]:
    """Their files in a folder and below it, by path."""
    return sorted(folder.rglob("wandb/offline-run-*/*.wandb"))


def was_sent(path: Path) -> bool:
    """Whether one of these files was sent: W&B leaves a file beside it then."""
    return path.with_name(f"{path.name}.synced").exists()
