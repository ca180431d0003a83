"""Held out is decided by what the encoder sees: texts that look alike to it lie on one side."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import pytest

from deproj.clip.encoder import TextEncoder
from deproj.data.mix import Mix
from deproj.data.seen import TokensSeen, words_seen
from deproj.data.sources import ListedPrompts, open_prompts
from deproj.texts.benchmark import SINGLE, plain

NAMES = [f"{word} {n}" for n in range(150) for word in ("café", "crème", "naïve", "Zoë", "señor")]
#: How a text is written so that its encoder sees no difference.
TWINS = {
    "NFC and NFD": lambda text: unicodedata.normalize("NFD", text),
    "case": str.upper,
    "spaces": lambda text: f"  {text.replace(' ', '   ')} ",
    "ends of lines": lambda text: text.replace(" ", "\n"),
    "U+2028": lambda text: text.replace(" ", "\u2028"),
    "commas": lambda text: text.replace(" ", ", "),
    "、": lambda text: text.replace(" ", "、"),
}


@pytest.mark.parametrize("kind", TWINS)
def test_twins_lie_on_one_side(encoder: TextEncoder, kind: str):
    twins = [TWINS[kind](name) for name in NAMES]
    source = ListedPrompts([[*NAMES, *twins]], "twins").seen_by(TokensSeen(encoder))
    assert [source.held_out(twin) for twin in twins] == [source.held_out(name) for name in NAMES]
    held = {text for text in source.texts() if source.held_out(text)}
    trained = set(itertools.islice(source.training(0), 2 * len(NAMES)))
    assert held
    assert not held & trained
    measured = set(itertools.islice(source.measuring(0), 500))
    assert not measured & set(itertools.islice(source.testing(0), 500)), "twins choose or measure the weights, not both"


def test_texts_that_are_equal_up_to_77_tokens_lie_on_one_side(encoder: TextEncoder):
    sight = TokensSeen(encoder)
    long = [f"number {n} " + "red hair, " * 50 for n in range(200)]
    source = ListedPrompts([[text + end for text in long for end in ("cat", "maid", "")]], "long").seen_by(sight)
    for text in long:
        assert len({source.held_out(text + end) for end in ("cat", "maid", "")}) == 1
        assert sight([text + "cat"])[0].key == sight([text + "maid"])[0].key
    assert source.counted.long == 600
    assert source.counted.longest == max(map(len, encoder.token_ids([text + "maid" for text in long])))


def test_what_the_encoder_tells_apart_is_told_apart(encoder: TextEncoder):
    texts = [*NAMES, "red-hair", "red hair", "a b", "ab", ""]
    assert len({seen.key for seen in TokensSeen(encoder)(texts)}) == len(texts)
    assert len({seen.key for seen in words_seen(NAMES)}) == len(NAMES)


@pytest.mark.parametrize("prompt", [SINGLE[0].upper(), SINGLE[1].replace(" ", "、"), f"  {SINGLE[2]} "])
def test_benchmark_prompts_are_held_out_however_they_are_written(encoder: TextEncoder, prompt: str):
    source = ListedPrompts([NAMES], "names").seen_by(TokensSeen(encoder))
    assert source.held_out(prompt)


def test_no_part_of_a_sample_is_held_out(encoder: TextEncoder):
    source = ListedPrompts([[name.replace(" ", " of the ") for name in NAMES]], "names").seen_by(TokensSeen(encoder))
    for sample in Mix(0.4, 0.4, 100).samples(source, 300, 0):
        assert not any(map(source.held_out, (sample.whole, *sample.parts)))


def test_composed_prompts_are_held_out_without_their_commas_too(encoder: TextEncoder):
    source = ListedPrompts([[f'say "{name}", {name}、cat' for name in NAMES]], "names").seen_by(TokensSeen(encoder))
    composed = source.composed(50, 0)
    assert composed
    assert all(source.held_out(prompt) and source.held_out(plain(prompt)) for prompt in composed)


def test_the_fingerprint_is_of_the_texts_alone(encoder: TextEncoder, tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("\n".join(NAMES), encoding="utf-8")
    first, second = (open_prompts(str(tmp_path / f"{name}.txt")) for name in "ab")
    assert first.fingerprint == second.fingerprint == first.seen_by(TokensSeen(encoder)).fingerprint
    (tmp_path / "b.txt").write_text("\n".join(NAMES[:-1]), encoding="utf-8")
    assert open_prompts(str(tmp_path / "b.txt")).fingerprint != first.fingerprint


def test_what_was_read_is_said(encoder: TextEncoder, tmp_path: Path):
    long = "red hair " * 60
    (tmp_path / "a.txt").write_text("\n".join([*NAMES, "", long]), encoding="utf-8")
    said = open_prompts(str(tmp_path / "a.txt")).seen_by(TokensSeen(encoder)).said
    assert said == f"751 captions of {tmp_path / 'a.txt'}, 1 empty left out, 1 cut to 77 tokens (the longest has 122)."
    assert open_prompts("grammar").said is None


def test_no_text_has_two_ends(encoder: TextEncoder):
    ids = encoder.token_ids(["cat <|endoftext|> maid", "<|startoftext|>cat", "<|endoftext|>", ""])
    assert all(row.count(encoder.tokenizer.eos_token_id) == row.count(encoder.tokenizer.bos_token_id) == 1 for row in ids)
    assert ids[0] == encoder.token_ids(["cat maid"])[0]
    assert ids[2] == ids[3]
