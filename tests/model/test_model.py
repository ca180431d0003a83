"""The deprojector: its equations against the oracle, generation, saving and loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import sequence

from deproj.clip.encoder import TextEncoder
from deproj.feed import Batch, FeedMode, Recursive
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.errors import UserError


def random_model(h0_added: str = "both", width: int = 6, hidden: int = 9) -> LSTMDeprojector:
    torch.manual_seed(7)
    model = LSTMDeprojector(LSTMConfig(width, hidden, h0_added)).double()
    with torch.no_grad():
        for parameter in [*model.parameters(), model.sos, model.deprojection]:
            parameter.copy_(torch.randn_like(parameter) * 0.7)
    return model


@pytest.mark.parametrize("h0_added", ["both", "carried", "put_out", "neither"])
@pytest.mark.parametrize("feed", [Batch(), Recursive()], ids=lambda f: type(f).__name__)
def test_is_the_equations(h0_added: str, feed: FeedMode):
    model = random_model(h0_added)
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    embedding, target = torch.randn(3, 6, dtype=torch.float64), torch.randn(3, 10, 6, dtype=torch.float64)
    ours = feed(model, embedding, target).detach().numpy()
    for row in range(3):
        fed = np.concatenate([np.zeros((1, 6)), target[row, :-1].numpy()]) if isinstance(feed, Batch) else None
        assert np.allclose(ours[row], sequence(weights, embedding[row].numpy(), 10, fed, h0_added), atol=1e-12)


def test_generation_is_recursive_with_sos_first():
    model = random_model()
    embedding = torch.randn(4, 6, dtype=torch.float64)
    states = model.generate(embedding)
    assert states.shape == (4, 77, 6)
    assert torch.equal(states[:, 0], model.sos.expand(4, 6))
    assert torch.allclose(states[:, 1:], Recursive()(model, embedding, torch.zeros(4, 76, 6)), atol=1e-12)
    assert torch.equal(model.generate(embedding, places=5), states[:, :5])
    assert model.generate(embedding, places=1).shape == (4, 1, 6)


def test_projected_embeddings_are_taken_back():
    model = random_model()
    embedding, projection = torch.randn(4, 6, dtype=torch.float64), model.deprojection.inverse()
    back = model.generate(embedding @ projection.T, from_projected=True)
    assert torch.allclose(back, model.generate(embedding), atol=1e-6)


def test_full_size_has_the_references_parameters():
    model = LSTMDeprojector(LSTMConfig(768, 1152))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 11_815_296


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        (torch.zeros(2, 5), "embedding is (B, 6)"),
        (torch.zeros(6), "embedding is (B, 6)"),
        (torch.full((1, 6), float("nan")), "NaN"),
        (torch.full((1, 6), float("inf")), "NaN or infinity"),
    ],
)
def test_refuses_bad_embeddings(embedding: torch.Tensor, said: str):
    with pytest.raises(UserError) as error:
        random_model().generate(embedding)
    assert said in str(error.value)


def test_refuses_projected_without_projection():
    model = LSTMDeprojector(LSTMConfig(6, 9), projected=False)
    with pytest.raises(UserError, match="without CLIP's text projection"):
        model.generate(torch.zeros(1, 6), from_projected=True)
    with pytest.raises(UserError, match="places is 1 to 77"):
        model.generate(torch.zeros(1, 6), places=78)


@pytest.mark.parametrize("sizes", [(0, 3, "both"), (4, 3, "all")])
def test_refuses_bad_sizes(sizes: tuple[int, int, str]):
    with pytest.raises(UserError):
        LSTMConfig(*sizes)


@pytest.mark.parametrize("projected", [True, False])
def test_saves_and_loads(tmp_path: Path, projected: bool):
    model = LSTMDeprojector(LSTMConfig(6, 9, "carried"), projected, {"feed": {"name": "batch"}})
    model.save_pretrained(tmp_path / "m")
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    for loader in (LSTMDeprojector, Deprojector):
        again = loader.from_pretrained(tmp_path / "m")
        assert isinstance(again, LSTMDeprojector)
        assert again.config == model.config
        assert again.provenance == model.provenance
        embedding = torch.randn(2, 6)
        assert torch.equal(again.generate(embedding), model.generate(embedding))


def spoil(folder: Path, how: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    elif how == "not json":
        config.write_text("{", encoding="utf-8")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    else:
        content = json.loads(config.read_text(encoding="utf-8"))
        content |= {"width": {"hidden": 10}, "kind": {"model_type": "gru"}}[how]
        config.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no weights", "no deprojector"),
        ("not json", "damaged"),
        ("truncated", "damaged"),
        ("width", "do not fit"),
        ("kind", "'gru'"),
    ],
)
def test_refuses_spoilt_folders(tmp_path: Path, how: str, said: str):
    LSTMDeprojector(LSTMConfig(6, 9)).save_pretrained(tmp_path)
    spoil(tmp_path, how)
    with pytest.raises(UserError, match=said):
        LSTMDeprojector.from_pretrained(tmp_path)


def test_refuses_another_encoder(tmp_path: Path, encoder: TextEncoder):
    model = LSTMDeprojector.for_encoder(encoder)
    model.save_pretrained(tmp_path)
    LSTMDeprojector.from_pretrained(tmp_path, encoder)
    model.provenance["encoder"] = "0" * 64
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="another text encoder"):
        LSTMDeprojector.from_pretrained(tmp_path, encoder)
    LSTMDeprojector(LSTMConfig(6, 9)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="width 6"):
        LSTMDeprojector.from_pretrained(tmp_path, encoder)


def test_for_encoder_takes_its_parts(encoder: TextEncoder):
    model = LSTMDeprojector.for_encoder(encoder)
    assert (model.config.width, model.config.hidden) == (128, 192)
    assert torch.equal(model.final_norm.weight, encoder.final_norm.weight)
    assert torch.equal(model.sos, encoder.sos)
    assert not any(p.requires_grad for p in model.final_norm.parameters())
    assert torch.equal(model.deprojection, encoder.deprojection)
