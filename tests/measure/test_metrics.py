"""The numbers, as laws: what perfect, empty and permuted states score, and what the intervals cover."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.data.cache import CachedSamples, build_cache
from deproj.data.mix import Mix
from deproj.data.sources import GrammarPrompts, ListedPrompts
from deproj.draw.renderer import Renderer
from deproj.draw.settings import SdSettings
from deproj.measure import metrics
from deproj.measure.baselines import BASELINES, Ridge
from deproj.measure.evaluator import Evaluator, evaluation_prompts, prompts_of_file
from deproj.measure.metrics import Measure
from deproj.model.lstm import LSTMDeprojector
from deproj.process.errors import UserError
from deproj.runs.records import MEASURES
from deproj.selection import AllTokens, EosOnward, TokenSelection, WordsEos, WordsEosReversed
from deproj.texts.benchmark import plain

SELECTIONS = [AllTokens(), WordsEos(), WordsEosReversed(), EosOnward()]


@pytest.fixture(scope="module")
def renderer(encoder: TextEncoder) -> Renderer:
    return Renderer(SdSettings("pixel", "pixel", "pixel", 8, 3.0, True, "grammar", 1), encoder.empty.states[0], "cpu")


@pytest.fixture(scope="module")
def evaluator(encoder: TextEncoder, renderer: Renderer, tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    prompts = evaluation_prompts(GrammarPrompts(), 6, 0)
    return Evaluator(encoder, renderer, prompts, None, tmp_path_factory.mktemp("worlds"))


class Given:
    """Hands the same states out, whatever the embedding."""

    def __init__(self, states: Tensor, selection: TokenSelection, lengths: Tensor) -> None:
        self.states = selection(lengths).arrange(states)

    def generate(self, embedding: Tensor) -> Tensor:
        assert len(embedding) == len(self.states)
        return self.states


def test_the_bootstrap_covers():
    rng, hits, trials = np.random.default_rng(0), 0, 400
    for _ in range(trials):
        below = rng.gamma(4, 1, 60)
        low, high = Measure(below * 0.3 + 0.2 * rng.standard_normal(60), below).interval()
        hits += low <= 0.3 <= high
    assert 0.91 <= hits / trials <= 0.98


def test_a_measure_leaves_out_what_is_not_there():
    measure = Measure.mean([1.0, float("nan"), 3.0])
    assert measure.value == 2
    assert np.isnan(Measure.mean([float("nan")] * 2).value)
    assert np.isnan(Measure.mean([float("nan")] * 2).interval()).all()


@pytest.mark.parametrize("selection", SELECTIONS)
def test_state_errors_put_places_back(encoder: TextEncoder, selection: TokenSelection):
    encoded = encoder(["cat maid", "1girl red hair blue eye", "1boy"])
    plan = selection(encoded.length)
    found, trained, by_place = metrics.state_errors(plan.arrange(encoded.states), encoded.states, encoded.length, plan)
    for region in ("words", "eos", "padding"):
        assert found[f"mse_{region}"].value == 0
        assert found[f"cosine_{region}"].value == pytest.approx(1)
        assert found[f"r2_{region}"].value == pytest.approx(1)
    words_only = isinstance(selection, WordsEos | WordsEosReversed)
    assert trained == {"words": not isinstance(selection, EosOnward), "eos": True, "padding": not words_only}
    assert by_place.abs().max() == 0

    spoilt = encoded.states.clone()
    spoilt[0, 1] += 1.0  # a word of the first prompt
    found, _, by_place = metrics.state_errors(plan.arrange(spoilt), encoded.states, encoded.length, plan)
    words = int((encoded.length - 2).sum())
    assert found["mse_words"].value == pytest.approx(1 / words, rel=1e-4)
    assert found["mse_eos"].value == found["mse_padding"].value == 0
    place = int((plan.order[0] == 1).nonzero())
    assert by_place[place] == pytest.approx(1 / 3, rel=1e-4)


def test_r2_of_the_mean_is_nothing(encoder: TextEncoder):
    encoded = encoder(["cat maid", "1girl in forest", "1boy at night"])
    mean = encoded.states.mean(0, keepdim=True).expand_as(encoded.states)
    found, _, _ = metrics.state_errors(mean, encoded.states, encoded.length, AllTokens()(encoded.length))
    assert found["r2_padding"].value == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("selection", [AllTokens(), EosOnward()])
def test_true_states_are_perfect(evaluator: Evaluator, encoder: TextEncoder, selection: TokenSelection):
    encoded = encoder([plain(prompt) for prompt in evaluator.prompts])
    result = evaluator(Given(encoded.states, selection, encoded.length), selection)
    for kind in ("single", "composed"):
        # cross-attention doesn't see order, so that the selection's order changes nothing beyond rounding
        assert result.of(kind).summaries["conditioning_error"].value == pytest.approx(0, abs=1e-6)
        assert result.of(kind).summaries["likeness"].value == pytest.approx(1, abs=1e-3)
        assert result.of(kind).summaries["noise"].value == pytest.approx(1, abs=0.02)
        assert result.of(kind).summaries["conditioning_error"].n == 6
        assert result.of(kind).summaries["fidelity"].value > 0.8
    if isinstance(selection, AllTokens):
        assert result == evaluator(Given(encoded.states, selection, encoded.length), selection)


def test_an_empty_prompt_is_no_better_than_an_empty_prompt(evaluator: Evaluator, encoder: TextEncoder):
    empty = encoder.empty.states.expand(6, -1, -1)
    result = evaluator(Given(empty, AllTokens(), torch.full((6,), 2)), AllTokens())
    assert result.of("single").summaries["conditioning_error"].value == pytest.approx(1, abs=1e-6)
    assert result.of("single").summaries["likeness"].value < 0.9


def test_the_order_of_states_changes_no_picture(encoder: TextEncoder, renderer: Renderer):
    states = encoder(["cat maid", "1boy 1girl in class room"]).states
    order = torch.randperm(77, generator=torch.Generator().manual_seed(0))
    pictures = [renderer(x, (0, 1)).int() for x in (states, states[:, order])]
    assert (pictures[0] - pictures[1]).abs().max() <= 2


def test_the_batch_size_changes_nothing(evaluator: Evaluator, encoder: TextEncoder, tmp_path: Path, monkeypatch):
    encoded = encoder([plain(prompt) for prompt in evaluator.prompts])
    subject = Given(encoded.states * 0.8, AllTokens(), encoded.length)
    whole = evaluator(subject, AllTokens())
    monkeypatch.setattr(evaluator.renderer, "chunk", 2)
    parts = Evaluator(encoder, evaluator.renderer, evaluator.prompts, None, tmp_path)(subject, AllTokens())
    for kind in ("single", "composed"):
        for name, entry in whole.of(kind).summaries.items():
            assert parts.of(kind).summaries[name].value == pytest.approx(entry.value, rel=2e-3, abs=1e-4), name


def test_what_belongs_to_the_world_is_kept_and_made_again_when_damaged(
    evaluator: Evaluator, encoder: TextEncoder, tmp_path: Path
):
    own = Evaluator(encoder, evaluator.renderer, evaluator.prompts[:2], None, tmp_path)
    states = encoder([plain(prompt) for prompt in own.prompts]).states
    first = own.reference(states)
    (path,) = tmp_path.glob("*.safetensors")
    made = path.stat().st_mtime_ns
    assert torch.equal(own.reference(states).latents, first.latents)
    assert path.stat().st_mtime_ns == made
    path.write_bytes(path.read_bytes()[:1000])
    assert torch.equal(own.reference(states).pictures, first.pictures)
    assert set(load_file(path)) == {"pictures", "latents", "steps", "noise", "below"}
    Evaluator(encoder, evaluator.renderer, evaluator.prompts[:2], None, tmp_path, seed=1).reference(states)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_parts_are_measured_as_the_whole(evaluator: Evaluator, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch):
    from deproj.measure import evaluator as module

    own = Evaluator(encoder, None, [*evaluator.prompts, "cat", "1boy, at night"], None, evaluator.cache)
    model = LSTMDeprojector.for_encoder(encoder).eval()
    whole = own(model, AllTokens())
    monkeypatch.setattr(module, "AT_ONCE", 2)
    parts = own(model, AllTokens())
    for name, value in whole.values.items():
        assert parts.values[name] == pytest.approx(value, rel=1e-4), name


def test_another_word_is_another_world(tmp_path: Path):
    encoder = TextEncoder.from_pretrained("pixel", "pixel")
    before = Evaluator(encoder, None, ["zork cat", "cat"], None, tmp_path).world_hash
    save_file({"emb_params": torch.randn(2, encoder.width)}, tmp_path / "zork.safetensors")
    encoder.load_textual_inversion(tmp_path / "zork.safetensors")
    assert Evaluator(encoder, None, ["zork cat", "cat"], None, tmp_path).world_hash != before


def test_clip_scores_tell_pictures_from_others(encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On the pixel world's own CLIP, given a tokenizer beside it as the Hub's have."""
    import shutil

    from deproj.pixel import WEIGHTS

    clip = Path(shutil.copytree(WEIGHTS / "clip", tmp_path / "clip"))
    shutil.copytree(WEIGHTS / "tokenizer", clip, dirs_exist_ok=True)
    renderer = Renderer(SdSettings("pixel", "pixel", "pixel", 20, 3.0, True, None, 1), encoder.empty.states[0], "cpu")
    prompts = ["cat in forest", "1girl red hair black skirt in class room", "1boy at night"]
    pictures = renderer(encoder(prompts).states, (0, 1, 2))
    right = metrics.clip_scores(pictures, prompts, str(clip), "cpu")
    with monkeypatch.context() as patched:
        patched.setattr(metrics, "SCORED_AT_ONCE", 2)
        assert metrics.clip_scores(pictures, prompts, str(clip), "cpu").value == pytest.approx(right.value, rel=1e-4)
    wrong = metrics.clip_scores(pictures, prompts[1:] + prompts[:1], str(clip), "cpu")
    assert right.value > wrong.value + 10
    assert (np.abs(right.above) <= 100).all()
    with pytest.raises(UserError, match="to score pictures with"):
        metrics.clip_scores(pictures, prompts, str(tmp_path), "cpu")


# --- Prompts and baselines ------------------------------------------------------------------------


def test_evaluation_prompts_are_held_out_and_composed():
    source = GrammarPrompts()
    prompts = evaluation_prompts(source, 50, 0)
    assert len(set(prompts)) == 50
    assert all(", " in prompt and source.held_out(prompt) and source.held_out(plain(prompt)) for prompt in prompts)
    assert prompts != evaluation_prompts(source, 50, 1)


def test_texts_without_commas_get_one(capsys: pytest.CaptureFixture[str]):
    source = ListedPrompts([[f"a picture of {n} things" for n in range(200)]], "texts.txt")
    prompts = evaluation_prompts(source, 100, 0)
    validated = set(itertools.islice(source.testing(0), 1000))
    assert len(prompts) + len(validated) == sum(map(source.held_out, source.texts())) < 100
    assert not validated & set(map(plain, prompts)), "measured on others than those that chose the weights"
    assert "only" in capsys.readouterr().out
    assert all(prompt.count(",") == 1 and source.held_out(plain(prompt)) for prompt in prompts)


def test_few_texts_are_for_both():
    texts = [f"a picture of {n} things" for n in range(200)]
    held_out = ListedPrompts([texts], "texts.txt").held_out
    few = ListedPrompts([[next(filter(held_out, texts)), next(itertools.filterfalse(held_out, texts))]], "few.txt")
    assert plain(evaluation_prompts(few, 1, 0)[0]) == next(few.testing(0))


def test_prompts_that_were_trained_on_are_refused(tmp_path: Path):
    source = ListedPrompts([[f"picture {n}" for n in range(200)]], "texts.txt")
    known = [text for text in source.texts() if not source.held_out(text)][:3]
    (tmp_path / "p.txt").write_text("\n".join([*known, "something, else", ""]), encoding="utf-8")
    with pytest.raises(UserError, match=r"3 of the 4 prompts of .*p\.txt are among the training prompts"):
        prompts_of_file(tmp_path / "p.txt", source)
    (tmp_path / "p.txt").write_text("something, else\nanother\nsomething, else\n", encoding="utf-8")
    assert prompts_of_file(tmp_path / "p.txt", source) == ["something, else", "another"]
    for content, said in ((b"", "holds no texts"), (b"one\none\n", "holds 1 prompts"), (b"\xff\xfe\x00", "not UTF-16")):
        (tmp_path / "p.txt").write_bytes(content)
        with pytest.raises(UserError, match=said):
            prompts_of_file(tmp_path / "p.txt", source)


@pytest.fixture(scope="module")
def samples(encoder: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> CachedSamples:
    texts = Mix().samples(GrammarPrompts(), 300, 0)
    return build_cache(tmp_path_factory.mktemp("samples"), {}, texts, 300, encoder, "samples")


@pytest.mark.parametrize("selection", [AllTokens(), WordsEosReversed(), EosOnward()])
@pytest.mark.parametrize("name", BASELINES)
def test_baselines_give_states_in_the_selections_order(samples: CachedSamples, selection: TokenSelection, name: str):
    rows = samples[range(20)]
    made = BASELINES[name](samples, selection).generate(rows.embedding)
    target = selection(rows.length).arrange(rows.states)
    assert made.shape == target.shape
    assert torch.equal(made[:, 0], target[:, 0])
    error, spread = (made - target).square().mean(), (target - target.mean(0)).square().mean()
    if name == "mean":
        every = samples[range(len(samples))]
        expected = selection(every.length).arrange(every.states).mean(0)
        assert (made - expected).square().mean() < 0.01 * expected.square().mean()
    if name == "nearest":
        assert error == 0  # of training embeddings
    if name == "ridge":
        assert error < spread
    if name == "broadcast":
        assert torch.equal(made[:, 5], rows.embedding)


def test_ridge_solves_its_normal_equations(samples: CachedSamples):
    selection = EosOnward()
    ridge = Ridge(samples, selection)
    rows = samples[range(len(samples))]
    x = rows.embedding.double()
    y = selection(rows.length).arrange(rows.states)[:, 1:].flatten(1).double()
    x_mean = x.mean(0)
    centred = x - x_mean
    weight, bias = Ridge.solve(ridge.moments(len(samples)), 0.1)
    penalty = 0.1 * centred.square().sum(0).mean()
    gradient = centred.T @ (y - y.mean(0) - centred @ weight) - penalty * weight
    assert gradient.abs().max() < 1e-8 * (centred.T @ y).abs().max()
    assert torch.allclose(x_mean @ weight + bias, y.mean(0))


def test_redrawing_finds_the_drawing():
    from deproj.pixel import WEIGHTS, scenes
    from deproj.pixel.reader import Reader
    from deproj.pixel.redraw import redraw

    reader = Reader.from_pretrained(WEIGHTS / "reader")
    pictures = torch.from_numpy(scenes.draw(scenes.sample(30, np.random.default_rng(5))).copy())
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    far = []
    for sigma in (0, 10, 30):
        noisy = (pictures.float() + sigma * noise).clamp(0, 255).round().byte()
        found = redraw(noisy, reader)
        assert found.drawings.shape == pictures.shape
        far.append(float(found.distance.median()))
    assert far[0] < 6
    assert far[0] < far[1] < far[2]


def test_two_colours_are_found_and_one_is_not():
    from deproj.pixel import scenes
    from deproj.pixel.colours import two_coloured

    drawn = scenes.sample(200, np.random.default_rng(6))
    one_colour = scenes.draw(drawn)
    alone = np.isin(drawn.values[:, scenes.WHO], (scenes.GIRL, scenes.BOY))
    assert alone.any()
    assert not alone.all()
    for column in (scenes.HAIR, scenes.EYE):
        values = drawn.values.copy()
        values[:, column] = 1 + values[:, column] % len(scenes.ATTRIBUTES[scenes.NAMES[column]])  # another colour
        mixed = scenes.draw(scenes.Scenes(values, drawn.style, drawn.tint))
        mixed[:, :, :16] = one_colour[:, :, :16]  # the left half of each picture
        middle = np.abs(drawn.style[:, 3]) <= 1  # who stands aside has hair and eyes in one half
        found = two_coloured(torch.from_numpy(mixed), drawn)
        assert (found[torch.from_numpy(alone & middle)] == 1).all()
    found = two_coloured(torch.from_numpy(one_colour), drawn)
    assert (found[torch.from_numpy(alone)] == 0).all()
    assert found[torch.from_numpy(~alone)].isnan().all()


def test_every_measure_is_in_the_tables_or_known_to_be_stored_alone(evaluator: Evaluator):
    """A new measure is named in `MEASURES`, or nobody sees it."""
    true = evaluator.encoder([plain(prompt) for prompt in evaluator.prompts])
    found = evaluator.evaluation(Given(true.states, AllTokens(), true.length), AllTokens()).single.summaries
    stored_alone = {f"{name}_{region}" for name in ("cosine", "r2") for region in ("words", "eos", "padding")}
    assert set(found) - stored_alone == set(MEASURES) - {"clip_score"}, "CLIP scores are of other worlds"
