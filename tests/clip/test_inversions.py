"""Textual inversions: words of one vector and of several, in prompts and captions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Ended
from safetensors.torch import save_file
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.demo.__main__ import load, options
from deproj.model.base import Deprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

D = 128


def vectors(count: int, seed: int = 0) -> Tensor:
    return 0.02 * torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def fresh() -> TextEncoder:
    return TextEncoder.from_pretrained("pixel", "pixel")


def written(path: Path, content: Any) -> Path:
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("name", "key", "word"),
    [
        ("style.safetensors", "emb_params", "style"),
        ("other.safetensors", "drawn-style", "drawn-style"),
        ("learned_embeds.bin", "drawn", "drawn"),
        ("a1111.pt", None, "a1111"),
    ],
)
@pytest.mark.parametrize("count", [1, 3])
def test_a_word_of_one_vector_or_of_several(
    name: str, key: str | None, word: str, count: int, tmp_path: Path, fresh: TextEncoder
):
    content: Any = {key: vectors(count)} if key else {"string_to_param": {"*": vectors(count)}, "name": "x", "step": 5}
    known = fresh.tokenizer(["1girl"]).input_ids[0][1:-1]
    assert fresh.load_textual_inversion(written(tmp_path / name, content)) == word
    (ids,) = fresh.token_ids([f"1girl {word}, red hair"])
    assert ids[1 : 1 + len(known)] == known
    placed = ids[1 + len(known) : 1 + len(known) + count]
    assert torch.equal(fresh.model.get_input_embeddings().weight[placed], vectors(count))
    assert fresh.token_ids(["red hair"])[0] == TextEncoder.from_pretrained("pixel").token_ids(["red hair"])[0]
    assert not any(weight.requires_grad for weight in fresh.model.parameters())
    encoded = fresh([f"1girl {word}", "1girl"])
    assert encoded.length.tolist() == [2 + len(known) + count, 2 + len(known)]
    assert not torch.allclose(encoded.embedding[0], encoded.embedding[1])


def test_texts_are_other_ones_and_models_the_same(fresh: TextEncoder, encoder: TextEncoder, tmp_path: Path):
    assert fresh.texts_hash == fresh.hash == encoder.hash
    before = fresh(["1girl red hair"]).states
    fresh.load_textual_inversion(written(tmp_path / "a.safetensors", {"emb_params": vectors(2)}), "mystyle")
    assert fresh.hash == encoder.hash
    assert fresh.texts_hash != fresh.hash
    assert torch.equal(fresh(["1girl red hair"]).states, before)
    assert Deprojector.from_pretrained("all-batch", fresh)


@pytest.mark.parametrize(
    ("content", "token", "said"),
    [
        ({"emb_params": torch.zeros(2, 64)}, None, "width 64, the text encoder 128"),
        (
            {"clip_l": torch.zeros(2, D), "clip_g": torch.zeros(2, 1280)},
            None,
            "no textual inversion of a Stable Diffusion 1.x; it holds",
        ),
        ({"emb_params": torch.full((1, D), float("nan"))}, None, "NaN"),
        ({"emb_params": torch.zeros(1, D)}, "two words", "no one word"),
        ({"emb_params": torch.zeros(1, D)}, "a,b", "no one word"),
        ({"emb_params": torch.zeros(1, D)}, "girl</w>", "knows 'girl</w>' already"),
        ({"emb_params": torch.zeros(1, D, 1)}, None, "no vector"),
    ],
)
def test_what_is_none_is_refused(content: dict[str, Tensor], token: str | None, said: str, fresh: TextEncoder, tmp_path: Path):
    count = len(fresh.tokenizer)
    with pytest.raises(UserError, match=said):
        fresh.load_textual_inversion(written(tmp_path / "x.safetensors", content), token)
    assert len(fresh.tokenizer) == count, "nothing is half done"


def test_files_that_are_not_there_or_hold_code_are_refused(fresh: TextEncoder, tmp_path: Path):
    with pytest.raises(UserError, match="no textual inversion at"):
        fresh.load_textual_inversion(tmp_path / "missing.safetensors")
    torch.save({"a": Path("x")}, tmp_path / "pickle.pt")
    with pytest.raises(UserError, match="no textual inversion at"):
        fresh.load_textual_inversion(tmp_path / "pickle.pt")


def test_captions_may_use_the_word(train: Callable[..., Ended], tmp_path: Path):
    written(tmp_path / "glow.safetensors", {"emb_params": vectors(2)})
    colours = ("red", "blue", "green", "pink", "black")
    lines = [
        f"1girl {colour} hair {place} glow" for colour in colours for place in ("in forest", "at night", "on beach", "in city")
    ]
    (tmp_path / "captions.txt").write_text("\n".join(lines), encoding="utf-8")
    ended = train("data.prompts=captions.txt", "sd.textual_inversions=[glow.safetensors]", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert "never" not in ended.out
    assert Deprojector.from_pretrained("run", TextEncoder.from_pretrained("pixel", "pixel")), "for the encoder alone"
    (page,) = load(options().parse_args(["run"])).values()
    assert list(page.encoder.inversions) == ["glow"], "the page draws with the run's own Stable Diffusion"
    with pytest.raises(UserError, match="no CLIP"):
        DeprojectorPipeline.from_pretrained("run", clip="/nowhere")
