"""Silences notices of the libraries that a user can do nothing about."""

from __future__ import annotations

import logging
import warnings

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """Silences notices that a user can do nothing about; warnings that matter still appear."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Batches are rows read from a file: worker processes would only copy them.
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Lightning calling a function of torch's by its older name.
    warnings.filterwarnings("ignore", ".*isinstance\\(treespec, LeafSpec\\).*")
    # The order of the samples knows where a run was stopped: `EpochOrder`.
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")
    # What is logged is the whole batch's already: `DeprojectorModule`.
    warnings.filterwarnings("ignore", ".*It is recommended to use `self.log\\('val/loss'.*sync_dist=True.*")
    # A run that goes on does so in its own folder.
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
