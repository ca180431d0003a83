"""``deproj.train --help``: made of the comments in ``conf/``, whole, right and quick."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended
from omegaconf import OmegaConf

from deproj.data.settings import DataSettings
from deproj.settings.compose import compose_config
from deproj.settings.described import choices, common, default_choices, described, lines_of
from deproj.settings.help import help_page, is_choice
from deproj.settings.messages import all_keys
from deproj.settings.mistakes import ELSEWHERE
from deproj.settings.nodes import leaves
from deproj.settings.shipped import CONF, GROUPS
from deproj.training.settings import RunSettings

Train = Callable[..., Ended]
FILES = sorted(path for path in CONF.rglob("*.yaml") if "experiment" not in path.parts)
SETTINGS = described()
SAID = [setting for setting in SETTINGS.values() if not is_choice(setting)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(CONF).as_posix())
def test_files_are_read_as_yaml_reads_them(path: Path):
    content = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(content, dict)
    content.pop("defaults", None)
    read = {line.key: OmegaConf.to_container(OmegaConf.create(f"x: {line.value}"))["x"] for line in lines_of(path)}  # type: ignore[call-overload,index]
    assert read == dict(leaves(content))


@pytest.mark.parametrize("setting", SAID, ids=lambda setting: setting.key)
def test_every_setting_is_explained_with_an_example_that_is_allowed(setting):
    assert setting.about
    assert setting.example
    assert "e.g." not in setting.about
    group = setting.key.partition(".")[0]
    if group == "hydra":
        return
    chosen = [] if "" in setting.defaults else [f"{group}={next(iter(setting.defaults))}"] if group in GROUPS else []
    if setting.key in ("sd.config", "sd.tokenizer"):  # which are of a single file only
        chosen = ["sd=sd15", "sd.path=model.safetensors", "data.prompts=captions.txt"]
    config = compose_config([*chosen, f"{setting.key}={setting.example}"])
    RunSettings.of(config)
    DataSettings.of(config)


@pytest.mark.parametrize("group", GROUPS)
def test_every_choice_is_explained(group: str):
    assert all(choice.about for choice in choices(group))
    assert default_choices()[group] in ("null", *(choice.name for choice in choices(group)))


def test_the_page_holds_all_with_the_common_ones_first(train: Train):
    ended = train("--help", defaults=False)
    assert ended.code == 0
    page = ended.out
    assert all(f"\n  {name} " in page or f"\n  {name}\n" in page for name in [*GROUPS, *(each.key for each in SAID)])
    assert all(f"=={choice.name}"[1:] in page for group in GROUPS for choice in choices(group))
    assert "_target_" not in page
    assert "logger.kind" not in page
    assert set(common()) <= {*GROUPS, *SETTINGS}
    first = [page.index(f"\n  {name} ") for name in [*common(), "objective"]]
    assert first == sorted(first)
    assert "Default: 10000 with sd=pixel, 100000 with sd=sd15. Example:" in " ".join(page.split())


def test_choices_of_ones_own_are_listed(tmp_path: Path):
    (tmp_path / "selection").mkdir()
    (tmp_path / "selection" / "first_ten.yaml").write_text("# the first ten\n_target_: mine.FirstTen\n", encoding="utf-8")
    assert "=first_ten" in help_page([f"--config-dir={tmp_path}"])
    assert "=first_ten" in help_page(["--config-dir", str(tmp_path)])


def test_it_is_quick_and_leaves_nothing(tmp_path: Path):
    begun = time.perf_counter()
    code = (
        "import sys; sys.argv = ['deproj', 'train', '--help']\nfrom deproj.__main__ import main\n"
        "assert main() == 0\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, stdout=subprocess.DEVNULL)
    assert time.perf_counter() - begun < 2
    assert list(tmp_path.iterdir()) == []


def test_what_other_programs_say_leads_to_settings():
    known = all_keys()
    for words in ELSEWHERE.values():
        assert {word.partition("=")[0] for word in words} <= known


def test_hydras_own_pages_stay(train: Train):
    ended = train("--cfg", "job", defaults=False)
    assert ended.code == 0
    assert "learning_rate: 0.001" in ended.out
