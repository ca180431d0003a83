"""Models that compute all places at once: the residual MLP and the transformer."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig
from deproj.model.mlp import MLPConfig
from deproj.model.residual import ResidualConfig, ResidualDeprojector
from deproj.model.transformer import TransformerConfig, TransformerDeprojector
from deproj.process.errors import UserError

D = 6


def made(kind: str) -> Deprojector:
    torch.manual_seed(3)
    if kind == "transformer":
        model: Deprojector = TransformerDeprojector(TransformerConfig(D, layers=2, heads=2, memory=3))
    else:
        model = ResidualDeprojector(ResidualConfig(D, 10, blocks=2, rank=4 if kind == "mixed" else 0))
    return model.double().requires_grad_(False).eval()


@pytest.fixture
def embedding() -> Tensor:
    return torch.randn(3, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["residual", "mixed", "transformer"])
def test_a_state_depends_on_its_embedding_alone(kind: str, embedding: Tensor, tmp_path: Path):
    model = made(kind)
    states = model.generate(embedding)
    assert states.shape == (3, 77, D)
    assert torch.equal(states[:, 0], model.sos.expand(3, D)), "SOS first"
    assert torch.allclose(states[:, :5], model.generate(embedding, places=5)), "however many are asked for"
    assert torch.allclose(states[1:2], model.generate(embedding[1:2])), "in any batch"
    fed = torch.randn(3, 76, D, dtype=torch.float64)
    assert torch.equal(states[:, 1:], model.unroll(embedding, 76, fed)), "whatever it is fed"
    assert not torch.allclose(states[0], states[1])
    state, x = model.start(embedding), torch.zeros_like(embedding)
    for place in range(3):
        x, state = model.step(state, x)
        assert torch.allclose(x, states[:, 1 + place]), "step by step"
    model.float().save_pretrained(tmp_path)
    again = Deprojector.from_pretrained(tmp_path)
    assert type(again) is type(model)
    assert again.config == model.config
    assert torch.allclose(again.generate(embedding), model.generate(embedding), atol=1e-6)


@pytest.mark.parametrize("kind", ["residual", "mixed"])
def test_the_residual_mlp_is_its_formula(kind: str, embedding: Tensor):
    model = made(kind)
    assert isinstance(model, ResidualDeprojector)
    w = dict(model.named_parameters())
    if kind == "mixed":
        w["mixing"].copy_(torch.randn_like(w["mixing"]))
        w["places"].copy_(torch.randn_like(w["places"]))

    def product(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def normed(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    x = product(embedding, "enter")
    for k in range(2):
        x = x + product(F.gelu(product(normed(x, f"blocks.{k}.0"), f"blocks.{k}.1")), f"blocks.{k}.3")
    out = product(normed(x, "norm"), "out").view(3, -1, D)
    if kind == "mixed":
        out = w["places"] + torch.einsum("pr,brd->bpd", w["mixing"], out)
    assert torch.allclose(model.unroll(embedding, 76), normed(out + embedding[:, None], "final_norm"), atol=1e-12)


def test_at_first_a_mix_is_its_states_in_turn(embedding: Tensor):
    states = made("mixed").unroll(embedding, 76)
    assert torch.allclose(states[:, :4], states[:, 4:8])
    assert not torch.allclose(states[:, 0], states[:, 1])


@pytest.mark.parametrize("kind", ["residual", "mixed", "transformer"])
def test_gradients_reach_every_weight(kind: str, embedding: Tensor):
    model = made(kind)
    learnt = {name: weight.requires_grad_() for name, weight in model.named_parameters() if "final_norm" not in name}
    target = torch.randn(3, 76, D, dtype=torch.float64)
    (model.unroll(embedding, 76) * target).sum().backward()
    for name, weight in learnt.items():
        assert weight.grad is not None, name
        assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", [ResidualDeprojector, TransformerDeprojector])
def test_for_an_encoder(kind: type[ResidualDeprojector] | type[TransformerDeprojector], encoder: TextEncoder):
    model = kind.for_encoder(encoder)
    assert model.config.width == encoder.width
    assert torch.equal(model.sos, encoder.sos)
    assert model.provenance["encoder"] == encoder.hash


@pytest.mark.parametrize(
    ("kind", "sizes", "told"),
    [
        (ResidualConfig, {"hidden": 0}, "the model's hidden is a whole number, at least 1; got 0"),
        (ResidualConfig, {"hidden": 4, "rank": 77}, "rank is 0, for none, to 76; got 77"),
        (TransformerConfig, {"heads": 4}, "heads divide its width, 6; got 4"),
        (TransformerConfig, {"memory": 0}, "at least 1"),
        (TransformerConfig, {"heads": "four"}, "the model's heads is a whole number, at least 1; got 'four'"),
        (LSTMConfig, {"hidden": 0}, "the model's hidden is a whole number, at least 1; got 0"),
        (MLPConfig, {"hidden": "x"}, "the model's hidden is a whole number, at least 1; got 'x'"),
        (MLPConfig, {"hidden": True}, "the model's hidden is a whole number"),
        (ResidualConfig, {"hidden": 8, "rank": 1.5}, "the model's rank is 0, for none, to 76; got 1.5"),
    ],
)
def test_sizes_that_cannot_be_are_refused(kind: type, sizes: dict[str, object], told: str):
    with pytest.raises(UserError, match=told):
        kind(D, **sizes)


def test_half_of_the_space(encoder: TextEncoder, tmp_path: Path):
    model = ResidualDeprojector.for_encoder(encoder, hidden=64)
    sizes = []
    for half in (False, True):
        model.save_pretrained(tmp_path / str(half), half=half)
        sizes.append((tmp_path / str(half) / "model.safetensors").stat().st_size)
    again = Deprojector.from_pretrained(tmp_path / "True", encoder)
    assert sizes[1] < 0.6 * sizes[0]
    assert all(weight.dtype == torch.float32 for weight in again.state_dict().values())
    for name, weight in model.named_parameters():
        assert torch.equal(dict(again.named_parameters())[name], weight.half().float())
    assert torch.equal(again.sos, model.sos)
