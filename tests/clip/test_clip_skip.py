"""Clip skip: states of a layer before the last, the embedding as ever."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, call

from deproj.clip.encoder import TextEncoder
from deproj.data.cache import encode, encode_embeddings, tokens_of
from deproj.data.mix import Mix
from deproj.data.sources import GrammarPrompts
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.evaluate import main as evaluate
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMDeprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

TEXTS = ["cat", "1girl red hair, in forest", ""]


@pytest.fixture(scope="module")
def skipping() -> TextEncoder:
    return TextEncoder.from_pretrained("pixel", "pixel", clip_skip=2)


@torch.no_grad()
def test_states_are_the_layers_after_the_final_norm(encoder: TextEncoder, skipping: TextEncoder):
    ours, last = skipping(TEXTS), encoder(TEXTS)
    ids = encoder.tokenizer(TEXTS, padding="max_length", return_tensors="pt").input_ids
    hidden = encoder.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert torch.allclose(ours.states, encoder.final_norm(hidden[-2]))
    assert torch.allclose(last.states, encoder.final_norm(hidden[-1])), "and 1 is none"
    assert torch.equal(ours.embedding, last.embedding)
    assert torch.equal(skipping.embed(TEXTS), encoder.embed(TEXTS))
    eos = ours.states[torch.arange(3), ours.length - 1]
    assert not torch.allclose(eos, ours.embedding), "the state at EOS is not the embedding"
    assert torch.allclose(ours.states[:, 0], skipping.sos.expand(3, -1), atol=1e-6)


def test_samples_have_the_layers_states_and_the_embedding(encoder: TextEncoder, skipping: TextEncoder):
    drawn = list(Mix(0.4, 0.4, parts=4).samples(GrammarPrompts(), 30, 0))
    tokens = tokens_of(drawn, encoder)[0]
    ours, last = encode(tokens, skipping), encode(tokens, encoder)
    assert torch.allclose(ours.embedding, last.embedding, atol=1e-6)
    assert torch.allclose(encode_embeddings(tokens, skipping), ours.embedding, atol=1e-4)
    assert torch.allclose(ours.states, skipping([sample.whole for sample in drawn]).states, atol=1e-5)


def test_it_is_in_the_hash_and_one_is_what_it_was(encoder: TextEncoder, skipping: TextEncoder):
    assert TextEncoder.from_pretrained("pixel", clip_skip=1).hash == encoder.hash
    assert len({encoder.hash, skipping.hash, TextEncoder.from_pretrained("pixel", clip_skip=3).hash}) == 3


@pytest.mark.parametrize("wrong", [0, 5, -1])
def test_layers_that_are_not_there_are_refused(wrong: int):
    with pytest.raises(UserError, match=rf"1 \(the last layer, none skipped\) to 4, .* got {wrong}"):
        TextEncoder.from_pretrained("pixel", clip_skip=wrong)


def test_a_model_of_another_clip_skip_is_refused(encoder: TextEncoder, skipping: TextEncoder, tmp_path: Path):
    LSTMDeprojector.for_encoder(skipping, hidden=8).save_pretrained(tmp_path / "two")
    LSTMDeprojector.for_encoder(encoder, hidden=8).save_pretrained(tmp_path / "one")
    assert Deprojector.from_pretrained(tmp_path / "two", skipping).clip_skip == 2
    for name, other in (("two", encoder), ("one", skipping)):
        with pytest.raises(UserError, match=r"was trained with clip skip \d, the pipeline has \d; set it to \d"):
            Deprojector.from_pretrained(tmp_path / name, other)


def test_a_run_trains_with_it_is_measured_and_goes_on(train: Callable[..., Ended]):
    ended = train("sd.clip_skip=2", "hydra.run.dir=run", "evaluate=2")
    assert ended.code == 0, ended.err
    assert Deprojector.from_pretrained("run").clip_skip == 2
    assert train("resume=run", "trainer.max_epochs=2", defaults=False).code == 0
    ended = train("init_from=run", "sd.clip_skip=1")
    assert ended.code == 1
    assert "was trained with clip skip 2" in ended.err


def test_the_pipeline_and_measuring_take_the_models_own(
    skipping: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = LSTMDeprojector.for_encoder(skipping, hidden=8)
    model.provenance["selection"] = {"_target_": "deproj.selection.EosOnward", "name": "eos_onward"}
    model.save_pretrained(tmp_path / "two")
    for pipe in (
        DeprojectorPipeline.from_pretrained("pixel", tmp_path / "two"),
        DeprojectorPipeline.from_pretrained("pixel", Deprojector.from_pretrained(tmp_path / "two")),
    ):
        assert pipe.encoder.clip_skip == 2
    with pytest.raises(UserError, match="was trained with clip skip 2, the pipeline has 1"):
        DeprojectorPipeline.from_pretrained(StableDiffusion.named("pixel").settings, tmp_path / "two")
    monkeypatch.chdir(tmp_path)
    ended = call(evaluate, ["two", "--count", "2"], monkeypatch, capsys)
    assert ended.code == 0, ended.err
