"""Stable Diffusion 2.x: other sizes and settings of the same parts, but for the last layer of its CLIP."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Ended
from shapes import SMALL

from deproj.clip.encoder import TextEncoder
from deproj.fullsize import make
from deproj.process.errors import UserError


@pytest.fixture
def second(tmp_path: Path) -> Path:
    """Stable Diffusion 2.1's peculiarities at small sizes: v-prediction, ``!`` for padding, a CLIP of one layer more."""
    make(tmp_path / "two", SMALL)
    more = SMALL.text | {"num_hidden_layers": SMALL.text["num_hidden_layers"] + 1}
    make(tmp_path / "whole", replace(SMALL, text=more))
    folder = tmp_path / "two" / "sd"
    for path, changed in (
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}),
        ("tokenizer/tokenizer_config.json", {"pad_token": "!"}),
    ):
        content = json.loads((folder / path).read_text(encoding="utf-8"))
        (folder / path).write_text(json.dumps(content | changed), encoding="utf-8")
    return folder


def test_it_trains_draws_and_is_measured(second: Path, train: Callable[..., Ended], tmp_path: Path):
    encoder = TextEncoder.from_pretrained(second)
    assert encoder.tokenizer.pad_token_id != encoder.tokenizer.eos_token_id
    length = int(encoder(["cat"]).length)
    assert length == len(encoder.tokenizer(["cat"]).input_ids[0]), "padding is no part of a text"
    ended = train(
        *("sd=sd15", f"sd.path={second.as_posix()}", "sd.clip=null", "sd.cpu=true", "sd.steps=2", "data.prompts=grammar"),
        *("objective=conditioning", "objective.steps=4", "evaluate=2", "render=1", "hydra.run.dir=run"),
    )
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "sheets" / "best.png").is_file()


def test_a_clip_of_another_depth_is_refused(second: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"has \d text layers, the pipeline's text encoder \d, .* set sd\.clip=null"):
        TextEncoder.from_pretrained(second, tmp_path / "whole" / "clip")
