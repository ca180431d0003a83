"""Ensembles and splices, as laws on random models, on what they refuse, and saved and loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.measure.evaluator import Evaluator
from deproj.model.base import Deprojector
from deproj.model.combine import Ensemble, LengthHead, Splice
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.model.mlp import MLPConfig, MLPDeprojector
from deproj.process.errors import UserError
from deproj.selection import AllTokens, EosOnward, WordsEos, WordsEosReversed

SELECTIONS = {"all": AllTokens(), "words_eos": WordsEos(), "words_eos_reversed": WordsEosReversed(), "eos_onward": EosOnward()}


def told(selection: str) -> dict[str, str]:
    return {"_target_": f"deproj.selection.{type(SELECTIONS[selection]).__name__}", "name": selection}


def random_model(seed: int, selection: str = "all", h0_added: str = "both", kind: str = "lstm") -> Deprojector:
    torch.manual_seed(seed)
    provenance = {"selection": told(selection)}
    made: Deprojector = LSTMDeprojector(LSTMConfig(6, 9, h0_added), provenance=provenance)
    if kind == "mlp":
        made = MLPDeprojector(MLPConfig(6, 5), provenance=provenance)
    made.double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.7)
        made.sos.copy_(torch.arange(6))
    return made.eval()


@pytest.fixture
def embedding() -> Tensor:
    return torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("h0_added", ["both", "carried", "put_out", "neither"])
@pytest.mark.parametrize("kind", ["lstm", "mlp"])
@torch.no_grad()
def test_steps_are_the_unrolling(embedding: Tensor, h0_added: str, kind: str):
    model = random_model(1, h0_added=h0_added, kind=kind)
    given = torch.randn(4, 10, 6, dtype=torch.float64)
    for fed in (None, given):
        state, x, out = model.start(embedding), torch.zeros_like(embedding), []
        for place in range(10):
            x, state = model.step(state, x if fed is None else fed[:, place])
            out.append(x)
        assert torch.allclose(torch.stack(out, 1), model.unroll(embedding, 10, fed), atol=1e-10)


@pytest.mark.parametrize("fuse", [0.0, 0.3, 1.0])
def test_an_ensemble_of_one_model_is_the_model(embedding: Tensor, fuse: float):
    model = random_model(1)
    for members in ([model], [model, model, model]):
        assert torch.allclose(Ensemble.of(members, fuse).generate(embedding), model.generate(embedding), atol=1e-9)


def test_without_fusing_it_is_the_mean_of_independent_runs(embedding: Tensor):
    members = [random_model(1), random_model(2, h0_added="carried"), random_model(3, kind="mlp")]
    mean = torch.stack([model.generate(embedding) for model in members]).mean(0)
    assert torch.allclose(Ensemble.of(members, 0.0).generate(embedding), mean, atol=1e-12)
    assert torch.allclose(Ensemble.of(members, 1e-14).generate(embedding), mean, atol=1e-6), "by steps too"


@torch.no_grad()
def test_fused_members_are_fed_the_mix(embedding: Tensor):
    members = [random_model(1), random_model(2)]
    for fuse in (0.4, 1.0):
        made = Ensemble.of(members, fuse).unroll(embedding, 6)
        fed = [torch.zeros(4, 1, 6, dtype=torch.float64) for _ in members]
        for place in range(6):  # every member anew, from what the formula says it was fed
            own = [model.unroll(embedding, place + 1, x)[:, -1] for model, x in zip(members, fed, strict=True)]
            mean = (own[0] + own[1]) / 2
            assert torch.allclose(made[:, place], mean, atol=1e-9)
            fed = [torch.cat([x, ((1 - fuse) * y + fuse * mean)[:, None]], 1) for x, y in zip(fed, own, strict=True)]


def test_ensembles_depend_on_no_order_and_no_batch(embedding: Tensor):
    members = [random_model(k) for k in range(3)]
    ensemble = Ensemble.of(members, 0.5)
    assert torch.allclose(ensemble.generate(embedding), Ensemble.of(members[::-1], 0.5).generate(embedding), atol=1e-9)
    alone = torch.cat([ensemble.generate(row[None]) for row in embedding])
    assert torch.allclose(ensemble.generate(embedding), alone, atol=1e-9)
    assert torch.allclose(ensemble.generate(embedding, places=5), ensemble.generate(embedding)[:, :5], atol=1e-9)


@pytest.mark.parametrize("words", [0, 1, 10, 75])
def test_a_splice_is_words_of_one_and_the_rest_of_the_other(embedding: Tensor, words: int):
    first, rest = random_model(1, "words_eos"), random_model(2, "eos_onward")
    made = Splice.of(first, rest, words).generate(embedding)
    assert torch.equal(made[:, : words + 1], first.generate(embedding)[:, : words + 1])
    assert torch.equal(made[:, words + 1 :], rest.generate(embedding)[:, 1 : 77 - words])
    assert made.shape == (4, 77, 6)
    assert torch.equal(made[:, 0], first.sos.expand(4, 6)), "SOS once, and first"


@pytest.mark.parametrize("rest", ["all", "eos_onward"])
@pytest.mark.parametrize("first", ["all", "words_eos", "words_eos_reversed"])
def test_perfect_models_splice_to_the_true_states(encoder: TextEncoder, first: str, rest: str, monkeypatch: pytest.MonkeyPatch):
    encoded = encoder(["cat", "1girl red hair blue eye black skirt", ""])
    models = [LSTMDeprojector.for_encoder(encoder) for _ in range(2)]
    for model, name in zip(models, (first, rest), strict=True):
        model.provenance["selection"] = told(name)
    splice = Splice.of(*models, words=3)
    for model, name in zip(splice.members, (first, rest), strict=True):
        made = SELECTIONS[name](encoded.length).arrange(encoded.states)
        monkeypatch.setattr(model, "generate", lambda embedding, made=made: made)
    monkeypatch.setattr(splice, "words", lambda embedding: encoded.length - 2)
    assert torch.equal(splice.generate(encoded.embedding), encoded.states)


def test_a_head_learns_the_length_and_splices_there():
    generator = torch.Generator().manual_seed(0)
    length = torch.randint(2, 6, (3000,), generator=generator)
    centres = 3 * torch.randn(4, 6, generator=generator)  # a direction for each length
    sample = centres[length - 2] + 0.3 * torch.randn(3000, 6, generator=generator)
    head = LengthHead.fit(sample[:2500], length[:2500], epochs=5)
    assert (head.words(sample[2500:]) + 2 == length[2500:]).float().mean() > 0.95
    again = LengthHead.fit(sample[:2500], length[:2500], epochs=5)
    assert torch.equal(head(sample), again(sample))
    before = torch.get_rng_state()
    LengthHead.fit(sample[:100], length[:100], 1)
    assert torch.equal(torch.get_rng_state(), before)

    first, rest = random_model(1, "words_eos"), random_model(2, "eos_onward")
    embedding = centres.double()
    splice = Splice.of(first, rest, head)
    words = splice.words(embedding)
    assert words.tolist() == [0, 1, 2, 3]
    for row, n in enumerate(words.tolist()):
        whole = Splice.of(first, rest, n).generate(embedding)[row]
        assert torch.allclose(splice.generate(embedding)[row], whole, atol=1e-12)


def test_saved_and_loaded_whole(tmp_path: Path, embedding: Tensor):
    words = [random_model(k, "words_eos").float() for k in (1, 2)]
    splice = Splice.of(Ensemble.of(words, 0.5), random_model(3, "eos_onward").float(), LengthHead(6))
    splice.save_pretrained(tmp_path / "both")
    again = Deprojector.from_pretrained(tmp_path / "both")
    assert isinstance(again, Splice)
    assert torch.equal(again.generate(embedding), splice.generate(embedding))
    assert again.provenance["selection"]["name"] == "all"
    with pytest.raises(UserError, match="'splice'; this class loads: lstm"):
        LSTMDeprojector.from_pretrained(tmp_path / "both")


def test_projected_embeddings_and_the_evaluator(encoder: TextEncoder, tmp_path: Path):
    models = [LSTMDeprojector.for_encoder(encoder) for _ in range(2)]
    ensemble = Ensemble.of(models, 0.5)
    embedding = encoder.compose(["cat, maid"])
    back = ensemble.generate(encoder.project(embedding), from_projected=True)
    assert torch.allclose(back, ensemble.generate(embedding), atol=1e-3)
    result = Evaluator(encoder, None, ["cat, maid", "1boy, in forest"], None, tmp_path)(ensemble, AllTokens())
    assert result.single.summaries["mse_words"].value > 0
    ensemble.check_encoder(encoder)


def other_encoder() -> Deprojector:
    model = random_model(5)
    model.sos.add_(1)
    return model


def other_width() -> Deprojector:
    return LSTMDeprojector(LSTMConfig(7, 9), provenance={"selection": told("all")}).double()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: Ensemble.of([]), "one member at least"),
        (lambda: Ensemble.of([random_model(1)], 1.5), "fuse is 0"),
        (lambda: Ensemble.of([random_model(1)], float("nan")), "fuse is 0"),
        (lambda: Ensemble.of([random_model(1), random_model(2, "eos_onward")]), "one order; got selections all, eos_onward"),
        (lambda: Ensemble.of([random_model(1), other_encoder()]), "one text encoder"),
        (lambda: Ensemble.of([random_model(1), other_width()]), "got 6 and 7"),
        (lambda: Splice.of(random_model(1, "eos_onward"), random_model(2), 3), "selection=eos_onward didn't learn words"),
        (lambda: Splice.of(random_model(1), random_model(2, "words_eos"), 3), "selection=words_eos didn't learn padding"),
        (lambda: Splice.of(random_model(1), random_model(2), 76), "0 to 75 words"),
        (lambda: Splice.of(random_model(1), other_width(), 3), "got 6 and 7"),
        (lambda: Splice.of(LSTMDeprojector(LSTMConfig(6, 9)), LSTMDeprojector(LSTMConfig(6, 9)), 3), "learnt an unknown one"),
        (lambda: Ensemble.of([random_model(1)]).generate(torch.zeros(1, 5)), "embedding is"),
        (lambda: Ensemble.of([Splice.of(random_model(1), random_model(2), 3)], 1.0).generate(torch.zeros(1, 6)), "not fed"),
    ],
)
def test_refuses(made, said: str):
    with pytest.raises(UserError) as error:
        made()
    assert said in str(error.value)
