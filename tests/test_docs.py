"""The README and docs/: what they show runs, what they name and link to is there.

Python snippets run in the order of their page; commands run as tests/commands.py says.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SMALL, Commands, Main, Parsed, main_of, until_parsed
from conftest import call
from pages import ROOT, Page, pages
from PIL import Image

from deproj.data.sources import GrammarPrompts
from deproj.pixel import WEIGHTS
from deproj.process.errors import UserError
from deproj.settings.compose import compose_config
from deproj.settings.nodes import leaves

MOST_WORDS = 1400
PAGES = {page.name: page for page in pages()}
#: With the experiments' pages, which are records of what was run.
LINKED = PAGES | {page.name: page for page in map(Page, sorted((ROOT / "experiments").glob("*/README.md")))}
#: Each command once.
COMMANDS = list(dict.fromkeys(command for page in PAGES.values() for command in page.commands))


# --- What the pages take for granted --------------------------------------------------------------


@pytest.fixture(scope="session")
def made(caches: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the pages name: runs, a model, captions, a photo, a LoRA, and files that a reader writes."""
    folder = tmp_path_factory.mktemp("desk")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, chosen in {"RUN": [], "RUN_OR_SWEEP": ["selection=all", "feed=batch"]}.items():
            small = [f"{key}={value}" for key, value in (SMALL | {"evaluate": "2", "data.cache": str(caches)}).items()]
            patch.setattr(sys, "argv", ["train", f"hydra.run.dir={name}", *chosen, *small])
            assert main_of("deproj.train")() == 0
    shutil.copytree(folder / "RUN" / "deprojector", folder / "MODEL")
    captions = GrammarPrompts().training(0)
    (folder / "captions.txt").write_text("\n".join(next(captions) for _ in range(300)), encoding="utf-8")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)).save(folder / "photo.png")
    write_lora(folder)
    for page in PAGES.values():
        for path, content in page.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
    return folder


def write_lora(folder: Path) -> None:
    """An untrained LoRA for the pixel world's U-Net, lora.safetensors."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    unet = UNet2DConditionModel.from_pretrained(WEIGHTS, subfolder="unet")
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"]))
    StableDiffusionPipeline.save_lora_weights(folder, get_peft_model_state_dict(unet), weight_name="lora.safetensors")


@pytest.fixture
def desk(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder as the working folder, from which modules are imported too, as by ``python -m``."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


@pytest.fixture
def commands(desk: Path, caches: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    def run(main: Main, words: list[str]) -> None:
        ended = call(main, words, monkeypatch, capsys)
        assert ended.code == 0, ended.err

    def parse(main: Main, words: list[str]) -> None:
        with monkeypatch.context() as patch:
            until_parsed(patch)
            with pytest.raises(Parsed):
                call(main, words, patch, capsys)

    return Commands(run, parse, caches)


# --- What runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if page.snippets])
def test_snippets_run(name: str, desk: Path):
    torch.manual_seed(0)
    known: dict[str, Any] = {}
    for number, snippet in enumerate(PAGES[name].snippets, 1):
        exec(compile(snippet, f"{name}, snippet {number}", "exec"), known)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, commands: Commands):
    commands(command)


@pytest.mark.parametrize(
    "command",
    [
        "python -m deproj.generate RUN --imge photo.png",
        "python -m deproj.bench --fast",
        "python -m deproj.train selection=al",
        "python -m deproj.train -m trainer=ddp data.sise=5,6",
        "pip install 'deproj[dmeo]'",
        "make trian",
        "dance",
    ],
)
def test_a_wrong_command_would_be_found(command: str, commands: Commands):
    with pytest.raises((AssertionError, UserError, pytest.fail.Exception)):
        commands(command)


# --- What is there --------------------------------------------------------------------------------


def test_the_readme_is_short():
    assert len(PAGES["README.md"].text.split()) <= MOST_WORDS


def test_the_readme_links_to_every_page():
    assert {link.partition("#")[0] for link in PAGES["README.md"].links} >= set(PAGES) - {"README.md"}


@pytest.mark.parametrize("name", LINKED)
def test_links_lead_somewhere(name: str):
    page = LINKED[name]
    for link in page.links:
        path, _, anchor = link.partition("#")
        target = (page.path.parent / path).resolve() if path else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in LINKED[target.relative_to(ROOT).as_posix()].anchors, link


@pytest.mark.parametrize("name", LINKED)
def test_files_that_are_named_are_there(name: str):
    for span in LINKED[name].spans:
        if re.fullmatch(r"(deproj|conf|experiments|tests|docs)/[\w/.-]*", span):
            assert (ROOT / span).exists(), span


@pytest.mark.parametrize("name", PAGES)
def test_settings_that_are_named_are_there(name: str):
    config = compose_config(["logger=wandb"])
    known = {key for key, _ in leaves(config)} | {key for key, _ in leaves(compose_config(["objective=conditioning"]))}
    for span in PAGES[name].spans:
        if (found := re.match(r"([a-z_]+)\.[a-z_]+(?==|$)", span)) and found[1] in config and span != "model.safetensors":
            assert found[0] in known, span
