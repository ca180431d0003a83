"""Silences notices of the libraries that a user can do nothing about, each by its words; all else still appears."""

from __future__ import annotations

import importlib
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["LOGGED", "WARNED", "quiet_libraries", "quiet_loading"]

#: Notices that libraries log: the logger, and what the notice says.
LOGGED = {
    # No picture is read through torchvision.
    "transformers.utils.import_utils": "requires torchvision",
    # Of one CLIP the text or the image encoder is loaded, and the other's weights are left. What is missing is checked here.
    "transformers.modeling_utils": "LOAD REPORT",
    # Weights in a .bin file are loaded as weights only. Of a single file an empty list of modules is told.
    "diffusers.models.modeling_utils": (
        r"no file named .*safetensors|Defaulting to unsafe serialization|should be kept in float32: \[\]"
    ),
    # A download without it is slower, and says so by its bar.
    "huggingface_hub.file_download": "'hf_xet' package is not installed",
    # Once on a machine.
    "matplotlib.font_manager": "generated new fontManager",
}

#: Notices that libraries give as warnings.
WARNED = (
    # Batches are rows read from a file: worker processes would only copy them.
    "does not have many workers",
    # Lightning calling a function of torch's by its older name.
    r"isinstance\(treespec, LeafSpec\)",
    # The order of the samples knows where a run was stopped: `EpochOrder`.
    "your dataloader is not resumable",
    # What is logged is the whole batch's already: `DeprojectorModule`.
    r"It is recommended to use `self.log\('val/loss'.*sync_dist=True",
    # A run that goes on does so in its own folder.
    "Checkpoint directory .* exists and is not empty",
    # trainer.accelerator=cpu asks for that.
    "GPU available but not used",
    # A command is started once on a node, and starts the other processes itself.
    "The `srun` command is available on your system but is not used",
    # Files are kept twice in the Hub's folder on systems without symbolic links.
    "cache-system uses symlinks",
)

#: What Lightning logs below a warning: which devices there are, what it offers besides, what it has restored.
TALKATIVE = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")


class Unheard(logging.Filter):
    """Keeps a notice from being logged."""

    def __init__(self, notice: str) -> None:
        super().__init__()
        self.notice = re.compile(notice)

    def filter(self, record: logging.LogRecord) -> bool:
        return self.notice.search(record.getMessage()) is None


#: One filter each, so that a logger which is silenced again still has one.
UNHEARD = {name: Unheard(notice) for name, notice in LOGGED.items()}


def quiet_libraries() -> None:
    """Silences the notices for the rest of the process, as a command does."""
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name, unheard in UNHEARD.items():
        logging.getLogger(name).addFilter(unheard)
    for notice in WARNED:
        warnings.filterwarnings("ignore", f"(?s).*{notice}")


@contextmanager
def quiet_loading(library: str = "transformers") -> Iterator[None]:
    """Silences the logged notices within the block, and the library's bars for a second's work.

    Downloads keep their bars.

    Args:
        library: transformers or diffusers; it is imported.
    """
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

    added = {name: unheard for name, unheard in UNHEARD.items() if unheard not in logging.getLogger(name).filters}
    for name, unheard in added.items():
        logging.getLogger(name).addFilter(unheard)
    bars = importlib.import_module(f"{library}.utils.logging")
    shown, downloads = bars.is_progress_bar_enabled(), not are_progress_bars_disabled()
    bars.disable_progress_bar()
    if downloads:  # transformers' switch is the Hub's too
        enable_progress_bars()
    try:
        yield
    finally:
        if shown:
            bars.enable_progress_bar()
        for name, unheard in added.items():
            logging.getLogger(name).removeFilter(unheard)
