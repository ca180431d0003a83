"""The pixel world as shipped: its scenes, its grammar, and the bars that its weights must meet."""

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from deproj.clip.encoder import TextEncoder
from deproj.pixel import WEIGHTS, grammar, scenes
from deproj.pixel.build import pictures_of
from deproj.pixel.reader import Reader
from deproj.texts.benchmark import COMPOSED, SINGLE

RNG = np.random.default_rng


def test_drawings_are_a_function_of_the_scene():
    drawn = scenes.sample(50, RNG(0))
    pictures = scenes.draw(drawn)
    assert pictures.shape == (50, 32, 32, 3)
    assert pictures.dtype == np.uint8
    assert np.array_equal(scenes.draw(drawn[10:12]), pictures[10:12])


@pytest.mark.parametrize("name", list(scenes.ATTRIBUTES))
def test_every_attribute_shows(name: str):
    """Changing one attribute of a scene that has it changes the picture."""
    drawn = scenes.sample(400, RNG(1))
    column = scenes.NAMES.index(name)
    other = drawn.values.copy()
    has = other[:, column] > 0
    if len(scenes.ATTRIBUTES[name]) == 1:
        other[has, column] = 0
    else:
        other[has, column] = other[has, column] % len(scenes.ATTRIBUTES[name]) + 1
    changed = scenes.draw(scenes.Scenes(other, drawn.style, drawn.tint))
    differs = (changed != scenes.draw(drawn)).any((1, 2, 3))
    assert differs[has].all()
    assert not differs[~has].any()


def test_captions_tell_the_truth_and_are_never_held_out():
    drawn = scenes.sample(3000, RNG(2))
    for values, text in zip(drawn.values, grammar.captions(drawn, random.Random(2)), strict=True):
        assert not grammar.held_out(text)
        key = grammar.asked(text)
        assert key, text
        for name, value in key:
            k = values[scenes.NAMES.index(name)]
            assert k > 0
            assert scenes.ATTRIBUTES[name][k - 1] == value, text


def test_benchmark_prompts_and_their_chunks_are_understood():
    asked = {
        "cat maid": {("who", "girl"), ("ears", "cat"), ("apron", "maid")},
        "1girl red hair blue eye black skirt": {("who", "girl"), ("hair", "red"), ("eye", "blue"), ("skirt", "black")},
        "1boy 1girl in class room": {("who", "girl and boy"), ("place", "class room")},
    }
    for single, composed in zip(SINGLE, COMPOSED, strict=True):
        assert grammar.asked(single) == grammar.asked(composed) == asked[single]
        for chunk in composed.split(", "):
            assert len(grammar.asked(chunk)) >= 1, chunk


def test_held_out_is_a_tenth_of_the_larger_keys_whatever_the_order():
    drawn = scenes.sample(4000, RNG(3))
    rng = random.Random(3)
    texts = [grammar.caption(values, rng) for values in drawn.values]
    keys = {grammar.asked(text) for text in texts if len(grammar.asked(text)) >= 3}
    share = sum(map(grammar._key_held_out, keys)) / len(keys)
    assert 0.07 < share < 0.13
    assert not any(grammar.held_out(text) for text in texts if len(grammar.asked(text)) < 3)
    for text in texts[:500]:
        words = text.replace(",", "")
        assert grammar.held_out(text) == grammar.held_out(words)


def test_the_vocabulary_is_what_captions_say():
    texts = list(itertools.islice(grammar.training_texts(5), 5000))
    assert not {word for text in texts for word in grammar.never_said(text)}
    said = " ".join(texts).replace(",", " ")
    for about, words in grammar.VOCABULARY.items():
        for word in words:
            assert (word if about in ("who", "where") else f"{word} {about}") in said
    assert grammar.never_said("A Spaceship, red hair spaceship") == ["a", "spaceship"]


def test_held_out_prompts_are_the_same_every_time():
    prompts = grammar.held_out_prompts(200)
    assert prompts == grammar.held_out_prompts(200)
    assert len({grammar.asked(text) for text in prompts}) == 200
    assert all(map(grammar.held_out, prompts))
    assert not any("," in text for text in prompts)


# --- The shipped weights ------------------------------------------------------------------------


def test_is_small_enough():
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= 30e6


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader.from_pretrained(WEIGHTS / "reader")


def test_reader_reads_fresh_drawings(reader: Reader):
    drawn = scenes.sample(1000, RNG(77))
    with torch.no_grad():
        logits = reader(pictures_of(drawn, "cpu"))
    for column, (name, out) in enumerate(logits.items()):
        right = (out.argmax(1).numpy() == drawn.values[:, column]).mean()
        assert right >= 0.99, name


def test_fidelity_counts_what_is_asked(reader: Reader):
    drawn = scenes.sample(40, RNG(78))
    pictures = pictures_of(drawn, "cpu")
    keys = [grammar.asked(text) for text in grammar.captions(drawn, random.Random(0))]
    assert np.mean(reader.fidelity(pictures, keys)) > 0.99
    assert np.mean(reader.fidelity(pictures.flip(0), keys)) < 0.7
    assert np.isnan(reader.fidelity(pictures[:1], [frozenset()])[0])
    for seen in reader.read(pictures[:3]):
        assert set(seen) == set(scenes.ATTRIBUTES)
        assert all(0 < confidence <= 1 for _, confidence in seen.values())


def test_vae_keeps_the_attributes(reader: Reader):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(WEIGHTS / "vae", dtype=torch.float32)
    drawn = scenes.sample(150, RNG(79))
    with torch.no_grad():
        latents = vae.encode(pictures_of(drawn, "cpu")).latent_dist.mode()
        logits = reader(vae.decode(latents).sample)
    right = [(out.argmax(1).numpy() == drawn.values[:, k]).mean() for k, out in enumerate(logits.values())]
    assert np.mean(right) >= 0.99
    assert latents.shape == (150, 8, 8, 8)
    assert latents.mean((0, 2, 3)).abs().max() < 0.15
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 0.15


def test_embedding_carries_what_captions_ask_for(encoder: TextEncoder):
    """A linear probe, fitted by least squares in closed form on training captions, on held-out ones."""
    import itertools

    train = list(itertools.islice(grammar.training_texts(21), 4000))
    test = grammar.held_out_prompts(400, seed=22)

    def labels(texts: list[str], name: str) -> torch.Tensor:
        return torch.tensor([[1.0 * ((name, value) in grammar.asked(t)) for value in scenes.ATTRIBUTES[name]] for t in texts])

    def bias(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.ones(len(x), 1)], 1)

    x, tx = bias(encoder.embed(train)), bias(encoder.embed(test))
    for name in ("who", "hair", "eye", "shirt", "skirt", "place"):
        solution = torch.linalg.lstsq(x, labels(train, name)).solution
        truth = labels(test, name)
        asked = truth.sum(1) > 0
        right = ((tx @ solution).argmax(1) == truth.argmax(1))[asked].float().mean()
        assert right >= 0.95, name


def test_pictures_from_true_states_hold_what_was_asked(encoder: TextEncoder, reader: Reader):
    """The ceiling of every deprojector, on a part of the bar's 200 prompts (all of them: figures.json)."""
    from omegaconf import OmegaConf

    from deproj.draw.renderer import Renderer
    from deproj.draw.settings import SdSettings
    from deproj.settings.nodes import settings
    from deproj.settings.shipped import CONF

    sd = settings(SdSettings, OmegaConf.to_container(OmegaConf.load(CONF / "sd" / "pixel.yaml")), "sd")
    prompts = grammar.held_out_prompts(200)[:60] + list(SINGLE)
    drawn = Renderer(sd, encoder.empty.states[0], "cpu")(encoder(prompts).states, range(len(prompts)))
    pictures = drawn.permute(0, 3, 1, 2) / 127.5 - 1
    hits = [
        seen[name][0] == value
        for seen, prompt in zip(reader.read(pictures), prompts, strict=True)
        for name, value in grammar.asked(prompt)
    ]
    assert np.mean(hits) >= 0.95


def test_figures_say_that_the_bars_are_met():
    figures = json.loads((WEIGHTS / "figures.json").read_text(encoding="utf-8"))
    assert set(figures) == {"tokenizer", "clip", "reader", "vae", "draft", "unet"}
    for stage in ("reader", "vae", "unet"):
        assert figures[stage]["met"] is True, stage


def test_the_unet_wants_its_draft(tmp_path: Path):
    from deproj.pixel.build import build_unet

    with pytest.raises(SystemExit, match=r"there is no draft in .* --stage draft"):
        build_unet(tmp_path, tmp_path, 1, "cpu")
