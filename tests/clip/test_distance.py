"""How far an embedding is from the training ones: prompts mixed as trained are near, noise is far."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, embeddings
from safetensors.torch import load_file, save_file

from deproj.clip.distance import FAR, EmbeddingDistance
from deproj.clip.encoder import TextEncoder
from deproj.data.mix import Mix
from deproj.data.sources import GrammarPrompts
from deproj.model.lstm import LSTMDeprojector
from deproj.process.errors import UserError
from deproj.texts.benchmark import COMPOSED, SINGLE


def test_prompts_mixed_as_trained_are_near(distance: EmbeddingDistance, encoder: TextEncoder):
    new = embeddings(Mix().testing(GrammarPrompts(), 300), encoder)
    assert (distance(new) > 1).float().mean() < 0.03
    assert distance(new).max() < FAR
    assert distance(encoder.compose([*SINGLE, *COMPOSED, ""])).max() < FAR


def test_noise_is_far(distance: EmbeddingDistance, encoder: TextEncoder):
    random = torch.Generator().manual_seed(0)
    new = embeddings(Mix().testing(GrammarPrompts(), 300), encoder)
    noise = new.mean(0) + new.std(0) * torch.randn(100, encoder.width, generator=random)
    assert distance(noise).min() > 2 * FAR
    assert distance(encoder.embed(["a photograph of an astronaut riding a horse"])) > FAR


def test_does_not_depend_on_units_and_is_a_mahalanobis_distance():
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(5000, 4, generator=random, dtype=torch.float64) @ torch.randn(4, 4, generator=random, dtype=torch.float64)
    scale = torch.tensor([1e-2, 1.0, 10.0, 1e2], dtype=torch.float64)
    ours, scaled = EmbeddingDistance.fit(rows)(rows), EmbeddingDistance.fit(rows * scale)(rows * scale)
    assert torch.allclose(ours, scaled, rtol=1e-3)
    centred = rows - rows.mean(0)
    expected = ((centred @ torch.linalg.inv(torch.cov(rows.T))) * centred).sum(1).sqrt()
    assert torch.corrcoef(torch.stack([ours.double(), expected]))[0, 1] > 0.99
    assert 0.0002 < (ours > 1).float().mean() < 0.004


@pytest.mark.parametrize("rows", [torch.zeros(1, 3), torch.ones(4, 3), torch.eye(3).repeat(7, 1)])
def test_few_or_equal_rows_give_finite_distances(rows: torch.Tensor):
    assert torch.isfinite(EmbeddingDistance.fit(rows)(torch.randn(5, 3))).all()


def test_a_run_keeps_it_with_its_model(train: Callable[..., Ended], tmp_path: Path, encoder: TextEncoder):
    assert train("hydra.run.dir=run").code == 0
    folder = tmp_path / "run" / "deprojector"
    model = LSTMDeprojector.from_pretrained(folder, encoder)
    assert model.distance is not None
    assert not any("distance" in name for name in model.state_dict()), "checkpoints stay what they were"
    model.save_pretrained(tmp_path / "copy")
    assert (tmp_path / "copy" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()

    weights = load_file(folder / "model.safetensors")
    older = Path(shutil.copytree(folder, tmp_path / "older"))
    save_file({name: value for name, value in weights.items() if not name.startswith("distance.")}, older / "model.safetensors")
    assert LSTMDeprojector.from_pretrained(older).distance is None
    del weights["distance.mean"]
    save_file(weights, older / "model.safetensors")
    with pytest.raises(UserError, match="damaged"):
        LSTMDeprojector.from_pretrained(older)
    assert json.loads((older / "config.json").read_text(encoding="utf-8"))["model_type"] == "lstm"
