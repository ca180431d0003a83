"""The text encoder: what it gives is what Stable Diffusion is conditioned on."""

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from deproj.clip.encoder import TextEncoder, locate
from deproj.pixel import WEIGHTS
from deproj.process.errors import UserError

TEXTS = ["", "cat maid", "1boy, 1girl, in class room", "Größe 日本 🙂"]


def test_states_are_the_pipelines_own(encoder: TextEncoder):
    encoded = encoder(TEXTS)
    tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer")
    model = CLIPTextModel.from_pretrained(WEIGHTS / "text_encoder", dtype=torch.float32)
    ids = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        states = model(ids.input_ids)
    assert torch.allclose(encoded.states, states.last_hidden_state, atol=1e-6)
    assert torch.allclose(encoded.embedding, states.pooler_output, atol=1e-6)
    assert encoded.length.tolist() == ids.attention_mask.sum(1).tolist()
    assert encoded.length.tolist()[:2] == [2, 4]


def test_embedding_is_the_state_at_the_first_eos(encoder: TextEncoder):
    encoded = encoder(TEXTS)
    for row, length in enumerate(encoded.length.tolist()):
        assert torch.equal(encoded.states[row, length - 1], encoded.embedding[row])
    assert torch.allclose(encoder.embed(TEXTS), encoded.embedding, atol=1e-5)


def test_sos_is_the_same_for_every_text(encoder: TextEncoder):
    assert torch.allclose(encoder(TEXTS).states[:, 0], encoder.sos.expand(len(TEXTS), -1), atol=1e-6)


def test_too_long_texts_are_cut_as_clip_does(encoder: TextEncoder):
    long = "red hair " * 60
    encoded = encoder([long, "cat"])
    assert encoded.truncated.tolist() == [True, False]
    assert encoded.length.tolist() == [77, 3]
    ids = encoder.tokenizer([long], truncation=True, max_length=77).input_ids
    assert encoder.tokenize([long])[0] == ids


def test_composed_prompts(encoder: TextEncoder):
    empty = encoder.empty.embedding[0]
    parts = encoder.embed(["cat", "maid"])
    composed = encoder.compose(["cat, maid", "cat", " , ", "cat,, maid,"])
    assert torch.allclose(composed[0], parts.sum(0) - empty, atol=1e-5)
    assert torch.allclose(composed[1], parts[0], atol=1e-5)
    assert torch.allclose(composed[2], empty)
    assert torch.allclose(composed[3], composed[0], atol=1e-5)


def test_projection_and_its_inverse(encoder: TextEncoder):
    clip = CLIPModel.from_pretrained(WEIGHTS / "clip", dtype=torch.float32)
    ids = clip_ids = encoder.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = clip.get_text_features(**clip_ids).pooler_output
    ours = encoder.project(encoder.embed(TEXTS))
    assert torch.allclose(ours, theirs, atol=1e-4), ids
    assert encoder.deprojection is not None
    assert torch.allclose(ours @ encoder.deprojection.T, encoder.embed(TEXTS), atol=1e-4)
    with pytest.raises(UserError, match="no CLIP projection"):
        TextEncoder.from_pretrained("pixel").project(ours)


def test_hash_is_of_the_weights_not_of_the_file(encoder: TextEncoder, world: Path):
    model = CLIPTextModel.from_pretrained(world / "text_encoder", dtype=torch.float32)
    model.save_pretrained(world / "text_encoder")  # float32 instead of float16
    assert TextEncoder.from_pretrained(world).hash == encoder.hash
    with torch.no_grad():
        model.state_dict()["final_layer_norm.bias"][0] += 0.1
    model.save_pretrained(world / "text_encoder")
    assert TextEncoder.from_pretrained(world).hash != encoder.hash


def test_refuses_what_is_no_pipeline(tmp_path: Path):
    with pytest.raises(UserError, match="no diffusers pipeline"):
        TextEncoder.from_pretrained(tmp_path)
    with pytest.raises(UserError, match="no pipeline at"):
        locate("nowhere")
    (tmp_path / "model_index.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="no CLIP text encoder"):
        TextEncoder.from_pretrained(tmp_path)


def test_refuses_a_clip_without_projection(world: Path):
    with pytest.raises(UserError, match="no text projection"):
        TextEncoder.from_pretrained("pixel", world / "text_encoder")
    with pytest.raises(UserError, match="no CLIP at"):
        TextEncoder.from_pretrained("pixel", world / "vae")


def test_refuses_a_clip_of_other_text_weights(world: Path):
    clip = CLIPModel.from_pretrained(world / "clip", dtype=torch.float32)
    with torch.no_grad():
        clip.text_model.final_layer_norm.weight[3] *= 1.005
    clip.save_pretrained(world / "clip")
    with pytest.raises(UserError, match=r"final_layer_norm.weight differs"):
        TextEncoder.from_pretrained(world, world / "clip")


def test_refuses_an_incomplete_encoder(world: Path):
    config = json.loads((world / "text_encoder" / "config.json").read_text(encoding="utf-8"))
    (world / "text_encoder" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}), encoding="utf-8")
    with pytest.raises(UserError, match="incomplete"):
        TextEncoder.from_pretrained(world)


def test_refuses_a_single_string(encoder: TextEncoder):
    with pytest.raises(UserError, match="list of strings"):
        encoder("cat")
