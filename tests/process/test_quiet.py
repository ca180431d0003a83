"""Library notices that a user can't act on stay unsaid, each of them; what matters is said."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from deproj.pixel import WEIGHTS
from deproj.process.quiet import LOGGED, WARNED, quiet_libraries, quiet_loading

#: Notices as the libraries word them, by the logger that they come from.
LOGGED_NOTICES = [
    (
        "transformers.utils.import_utils",
        "`CLIPImageProcessor` requires torchvision (not installed); falling back to `CLIPImageProcessorPil` for backward "
        "compatibility.",
    ),
    ("transformers.modeling_utils", "\x1b[1mCLIPTextModelWithProjection LOAD REPORT\x1b[0m from: clip\nKey | Status | |"),
    (
        "diffusers.models.modeling_utils",
        "An error occurred while trying to fetch sd/unet: Error no file named diffusion_pytorch_model.safetensors found.",
    ),
    (
        "diffusers.models.modeling_utils",
        "Defaulting to unsafe serialization. Pass `allow_pickle=False` to raise an error instead.",
    ),
    (
        "huggingface_hub.file_download",
        "Xet Storage is enabled for this repo, but the 'hf_xet' package is not installed. Falling back to regular HTTP download.",
    ),
    ("matplotlib.font_manager", "generated new fontManager"),
]
#: What Lightning says below a warning.
INFORMED = [
    "GPU available: False, used: False",
    "TPU available: False, using: 0 TPU cores",
    "💡 Tip: For seamless cloud logging and experiment tracking, try installing litlogger",
    "`weights_only` was not set, defaulting to `False`.",
    "`Trainer.fit` stopped: `max_epochs=1` reached.",
    "Restored all states from the checkpoint at last.ckpt",
    "You are using a CUDA device ('NVIDIA H100') that has Tensor Cores.",
]
WARNED_NOTICES = [
    "The 'train_dataloader' does not have many workers which may be a bottleneck.",
    "`isinstance(treespec, LeafSpec)` is deprecated, use `isinstance(treespec, TreeSpec) and treespec.is_leaf()` instead.",
    "You're resuming from a checkpoint that ended before the epoch ended and your dataloader is not resumable.",
    "It is recommended to use `self.log('val/loss', ..., sync_dist=True)` when logging on epoch level in distributed setting",
    "Checkpoint directory runs/1/checkpoints exists and is not empty.",
    "GPU available but not used. You can set it by doing `Trainer(accelerator='gpu')`.",
    "The `srun` command is available on your system but is not used. HINT: If your intention is to run Lightning on SLURM",
    "`huggingface_hub` cache-system uses symlinks by default to efficiently store duplicated files but your machine does not",
]
#: What a user should read.
MATTERS = [
    ("transformers.modeling_utils", "You are using a model of type bert to instantiate a model of type clip."),
    ("diffusers.models.modeling_utils", "The config attributes {'a': 1} were passed to the model, but are not expected."),
    ("huggingface_hub.file_download", "Not enough free disk space to download the file."),
    ("pytorch_lightning.utilities.rank_zero", "Skipping the batch."),
]


class Heard(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


@pytest.fixture
def heard():
    """What reaches the root of all loggers; these are left as they were."""
    for library in ("transformers", "diffusers", "huggingface_hub"):  # sets its loggers up once
        import_module(f"{library}.utils.logging").get_logger()
    names = {*LOGGED, *(name for name, _ in MATTERS), "pytorch_lightning", "lightning.pytorch", "lightning_fabric"}
    before = {name: (logging.getLogger(name).level, list(logging.getLogger(name).filters)) for name in names}
    libraries = {name: logging.getLogger(name).propagate for name in ("transformers", "diffusers", "huggingface_hub")}
    for name in names:
        logging.getLogger(name).filters.clear()
    for name in (*libraries, "pytorch_lightning"):
        logging.getLogger(name).propagate = True
    handler = Heard()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)
    for name, propagate in libraries.items():
        logging.getLogger(name).propagate = propagate
    for name, (level, filters) in before.items():
        logging.getLogger(name).setLevel(level)
        logging.getLogger(name).filters[:] = filters


@pytest.mark.parametrize(("logger", "notice"), LOGGED_NOTICES)
def test_a_logged_notice_is_not_heard(heard: Heard, logger: str, notice: str):
    logging.getLogger(logger).warning(notice)
    assert heard.texts == [notice]  # it is without us
    quiet_libraries()
    logging.getLogger(logger).warning(notice)
    assert heard.texts == [notice]


@pytest.mark.parametrize("notice", INFORMED)
def test_lightnings_talk_is_not_heard(heard: Heard, notice: str):
    quiet_libraries()
    logging.getLogger("pytorch_lightning.utilities.rank_zero").info(notice)
    assert not heard.texts


@pytest.mark.parametrize("notice", WARNED_NOTICES)
def test_a_warning_that_tells_nothing_is_not_given(notice: str):
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn(notice, stacklevel=1)
        warnings.warn(f"\n{notice}", stacklevel=1)
    assert not given


def test_every_notice_is_tried():
    assert {name for name, _ in LOGGED_NOTICES} == set(LOGGED)
    assert len(WARNED_NOTICES) == len(WARNED)


@pytest.mark.parametrize(("logger", "text"), MATTERS)
def test_what_matters_is_heard(heard: Heard, logger: str, text: str):
    quiet_libraries()
    with quiet_loading():
        logging.getLogger(logger).warning(text)
    assert heard.texts == [text]


def test_a_warning_of_our_own_is_given():
    with warnings.catch_warnings(record=True) as given:
        warnings.simplefilter("always")
        quiet_libraries()
        warnings.warn("the LoRA's part for the text encoder is left out", stacklevel=1)
    assert len(given) == 1


def test_loading_leaves_loggers_and_bars_as_they_were(heard: Heard):
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled
    from transformers.utils import logging as transformers

    with quiet_loading():
        assert not transformers.is_progress_bar_enabled()
        assert not are_progress_bars_disabled()  # a download shows its bar
        logging.getLogger("transformers.modeling_utils").warning("LOAD REPORT")
    assert transformers.is_progress_bar_enabled()
    assert not heard.texts
    logging.getLogger("transformers.modeling_utils").warning("LOAD REPORT")
    assert heard.texts == ["LOAD REPORT"]


# --- As the libraries say them --------------------------------------------------------------------

PROGRAM = """
import sys, warnings
from deproj.draw.stable_diffusion import StableDiffusion
sd = StableDiffusion.named(sys.argv[1], sys.argv[1] + "/clip")
encoder = sd.encoder("cpu")
sd.renderer(encoder, "cpu")
from PIL import Image
sd.images(encoder, None, [Image.new("RGB", (32, 32))] * 2)
warnings.warn("one that matters")
"""


@pytest.mark.parametrize("pickled", [False, True])
def test_a_stable_diffusion_is_loaded_without_a_word(tmp_path: Path, pickled: bool):
    """Torchvision is missing or isn't, half of CLIP's weights are left, and weights may lie in .bin files."""
    world = Path(shutil.copytree(WEIGHTS, tmp_path / "world"))
    for path in [*world.rglob("model.safetensors"), *world.rglob("diffusion_pytorch_model.safetensors")] if pickled else []:
        if path.parent.name != "reader":
            name = path.name if path.name.startswith("diffusion") else f"pytorch_{path.name}"
            torch.save(load_file(path), (path.parent / name).with_suffix(".bin"))
            path.unlink()
    ended = subprocess.run([sys.executable, "-c", PROGRAM, str(world)], capture_output=True, encoding="utf-8", check=True)
    assert ended.stdout == ""
    (warning,) = ended.stderr.splitlines()
    assert "one that matters" in warning
