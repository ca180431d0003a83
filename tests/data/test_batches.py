"""Samples and their cache: shared, whole or not there, refused when damaged."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from deproj.clip.encoder import TextEncoder
from deproj.data.batches import DataSettings, EpochOrder, SamplesModule, sorting_pays
from deproj.data.cache import CachedSamples, build_cache
from deproj.data.mix import Mix, Sample
from deproj.data.sources import GrammarPrompts
from deproj.process.errors import UserError
from deproj.selection import AllTokens, EosOnward, WordsEos, WordsEosReversed

COUNT = 70
SELECTIONS = (AllTokens(), WordsEos(), WordsEosReversed(), EosOnward())


def samples() -> Iterator[Sample]:
    return Mix().samples(GrammarPrompts(), COUNT, 0)


def no_samples() -> Iterator[Sample]:
    raise AssertionError("the cache was there, nothing should be encoded")
    yield


def made(folder: Path) -> set[Path]:
    """What lies in a folder of caches, without the locks, which stay."""
    return {path for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.fixture
def cache(tmp_path: Path, encoder: TextEncoder) -> CachedSamples:
    return build_cache(tmp_path, {"a": 1}, samples(), COUNT, encoder, "samples")


def test_holds_what_the_encoder_gives(cache: CachedSamples, encoder: TextEncoder):
    drawn = list(samples())
    rows = cache[list(range(COUNT))]
    encoded = encoder([sample.whole for sample in drawn])
    assert torch.allclose(rows.states, encoded.states, atol=4e-3), "float16"
    assert torch.equal(rows.length, encoded.length)
    empty = encoder.empty.embedding[0]
    for sample, embedding in zip(drawn, rows.embedding, strict=True):
        added = (encoder.embed(sample.parts) - empty).sum(0) + empty
        assert torch.allclose(embedding, added, atol=1e-4)
    assert rows.embedding.dtype == rows.states.dtype == torch.float32


@pytest.mark.parametrize("keep", ["states", "tokens"])
def test_sums_of_many_parts(tmp_path: Path, encoder: TextEncoder, keep: str):
    mix = Mix(0.4, 0.4, parts=5)
    drawn = list(mix.samples(GrammarPrompts(), COUNT, 0))
    assert max(len(sample.parts) for sample in drawn) == 5
    cached = build_cache(tmp_path, {"mix": mix.key}, iter(drawn), COUNT, encoder, "samples", keep)
    empty = encoder.empty.embedding[0]
    for sample, embedding in zip(drawn, cached[list(range(COUNT))].embedding, strict=True):
        added = (encoder.embed(sample.parts) - empty).sum(0) + empty
        assert torch.allclose(embedding, added, atol=2e-4)


@pytest.mark.parametrize("keep", ["states", "tokens"])
@pytest.mark.parametrize("parts", [2, 5])
def test_every_variant_is_a_sum_of_the_same_text(tmp_path: Path, encoder: TextEncoder, keep: str, parts: int):
    mix = Mix(0.4, 0.3, empty_every=9, parts=parts, variants=4)
    drawn = list(mix.samples(GrammarPrompts(), COUNT, 0))
    cached = build_cache(tmp_path, {"mix": mix.key}, iter(drawn), COUNT, encoder, "samples", keep)
    rows = cached[list(range(COUNT))]
    assert rows.variants.shape == (COUNT, 4, encoder.width)
    empty, seen = encoder.empty.embedding[0], 0
    for sample, variants in zip(drawn, rows.variants, strict=True):
        for way, embedding in zip((sample.parts, *sample.others), variants, strict=True):
            assert sorted(" ".join(way).replace(",", " ").split()) == sorted(sample.whole.replace(",", " ").split())
            assert torch.allclose(embedding, (encoder.embed(way) - empty).sum(0) + empty, atol=2e-4)
        seen += len({sample.parts, *sample.others}) > 1
    assert seen > COUNT // 3
    for epoch in (0, 1, 5):
        turned = rows.in_epoch(epoch)
        assert torch.equal(turned.embedding, rows.variants[:, epoch % 4])
        assert torch.equal(turned.variants.sort(1).values, rows.variants.sort(1).values), "each variant once, whichever is first"
    assert torch.allclose(cached.embeddings(COUNT), rows.embedding, atol=1e-5)


def test_one_variant_is_what_there_was_before():
    assert Mix(variants=1).key == Mix().key
    assert "variants" in Mix(variants=2).key
    held_out = [list(mix.testing(GrammarPrompts(), 30)) for mix in (Mix(variants=3), Mix())]
    assert held_out[0] == held_out[1], "held-out samples have one"


def test_tokens_encoded_anew_are_the_states(cache: CachedSamples, encoder: TextEncoder):
    tokens = build_cache(cache.folder.parent, {"a": 1}, samples(), COUNT, encoder, "samples", "tokens")
    assert tokens.folder != cache.folder
    rows = [60, 3, 3, 17]
    kept, anew = cache[rows], tokens[rows]
    assert torch.equal(kept.length, anew.length)
    assert torch.allclose(kept.states, anew.states, atol=4e-3), "float16"
    assert torch.allclose(kept.embedding, anew.embedding, atol=1e-4)
    sizes = [sum(path.stat().st_size for path in each.folder.glob("*.bin")) for each in (cache, tokens)]
    assert sizes[1] < 500 * COUNT < sizes[0] / 30
    path = tokens.folder / "ids.bin"
    content = bytearray(path.read_bytes())
    content[17 * 3 * 77 * 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged: row 17 .* Delete the folder"):
        tokens[rows]


def test_embeddings_alone_are_those_of_the_rows(cache: CachedSamples, encoder: TextEncoder):
    tokens = build_cache(cache.folder.parent, {"a": 1}, samples(), COUNT, encoder, "samples", "tokens")
    for kept in (cache, tokens):
        for most, count in ((33, 33), (10 * COUNT, COUNT)):
            assert torch.allclose(kept.embeddings(most), kept[list(range(count))].embedding, atol=1e-5)
    assert any(len(sample.parts) > 1 for sample in samples())
    assert any(len(sample.parts) == 1 for sample in samples())


def test_is_made_once(cache: CachedSamples, encoder: TextEncoder):
    again = build_cache(cache.folder.parent, {"a": 1}, no_samples(), COUNT, encoder, "samples")
    assert again.folder == cache.folder
    other = build_cache(cache.folder.parent, {"a": 2}, samples(), COUNT, encoder, "samples")
    assert other.folder != cache.folder
    assert made(cache.folder.parent) == {cache.folder, other.folder}, "no leftovers"


def test_header_that_does_not_match_is_rebuilt(cache: CachedSamples, encoder: TextEncoder):
    header = cache.folder / "header.json"
    header.write_text(json.dumps(json.loads(header.read_text(encoding="utf-8")) | {"a": 3}), encoding="utf-8")
    again = build_cache(cache.folder.parent, {"a": 1}, samples(), COUNT, encoder, "samples")
    assert again.header["a"] == 1


def test_interrupted_build_leaves_nothing(tmp_path: Path, encoder: TextEncoder):
    def broken() -> Iterator[Sample]:
        yield from itertools.islice(samples(), 10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(tmp_path, {}, broken(), COUNT, encoder, "samples")
    assert made(tmp_path) == set()


@pytest.mark.parametrize("array", ["states", "embedding", "length", "checksum"])
def test_flipped_byte_is_found(cache: CachedSamples, array: str):
    path = cache.folder / f"{array}.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged: row \d+ .* Delete the folder"):
        CachedSamples(cache.folder, cache.encoder)[list(range(COUNT))]


@pytest.mark.parametrize("name", ["states.bin", "header.json"])
def test_missing_or_short_file_is_found(cache: CachedSamples, encoder: TextEncoder, name: str):
    path = cache.folder / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="damaged"):
        build_cache(cache.folder.parent, {"a": 1}, samples(), COUNT, encoder, "samples")


def test_no_space_says_so(tmp_path: Path, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deproj.data.cache.write_arrays", full)
    with pytest.raises(UserError, match="No space left on device"):
        build_cache(tmp_path, {}, samples(), COUNT, encoder, "samples")
    assert made(tmp_path) == set()


def test_order_is_a_function_of_seed_and_epoch():
    order = EpochOrder(10, 3, seed=5)
    first = list(order)
    assert sorted(itertools.chain(*first)) == list(range(10))
    assert [len(batch) for batch in first] == [3, 3, 3, 1]
    assert list(order) == first
    order.set_epoch(1)
    assert list(order) != first
    assert list(EpochOrder(10, 3, seed=6)) != first
    assert list(itertools.chain(*EpochOrder(10, 3, None))) == list(range(10))


def test_batches_of_like_lengths_hold_every_row_once_and_with_equal_chance():
    """The marginal distribution of a step's rows is what makes the expected gradient that of uniform sampling."""
    lengths = np.random.default_rng(0).integers(5, 26, 47)
    order = EpochOrder(47, 5, seed=1, lengths=lengths)
    first = list(order)
    assert sorted(itertools.chain(*first)) == list(range(47))
    assert [len(batch) for batch in first] == [5] * 9 + [2]
    assert list(order) == first
    assert max(np.ptp(lengths[batch]) for batch in first[:-1]) <= 6  # 1 in 9 of lengths 5 to 25, and a few more
    counts = np.zeros((47, len(first)))
    epochs = 4000
    for epoch in range(epochs):
        order.set_epoch(epoch)
        for step, batch in enumerate(order):
            counts[batch, step] += 1
    expected = np.array([5 / 47] * 9 + [2 / 47])
    assert np.abs(counts / epochs - expected).max() < 5 * np.sqrt(expected.max() / epochs)


def test_like_lengths_are_for_those_that_gain_by_them():
    lengths = np.random.default_rng(0).integers(5, 26, 1000)
    pays = {type(selection).__name__: sorting_pays(selection, lengths, 100) for selection in SELECTIONS}
    assert pays == {"AllTokens": False, "WordsEos": True, "WordsEosReversed": True, "EosOnward": False}


def settings(root: Path, **changed: object) -> DataSettings:
    base = {"prompts": "grammar", "column": None, "size": 40, "split": 0.3, "combine": 0.3, "parts": 5, "held_out": 10}
    base |= {"batch_size": 20, "like_lengths": "auto", "cache": str(root), "seed": 0}
    return DataSettings(**(base | changed))


def test_runs_of_other_seeds_share_the_samples(tmp_path: Path, encoder: TextEncoder):
    loaded = []
    for seed in (0, 1):
        data = SamplesModule(settings(tmp_path), GrammarPrompts(), encoder, EosOnward(), seed)
        data.setup()
        loaded.append(data)
    assert loaded[0].train.folder == loaded[1].train.folder
    assert made(tmp_path) == {data.train.folder, data.held_out.folder}
    orders = [torch.cat([batch.length for batch in data.train_dataloader()]).tolist() for data in loaded]
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1])


def test_held_out_samples_are_the_same_whatever_the_seed(tmp_path: Path, encoder: TextEncoder):
    folders = set()
    for seed in (0, 1):
        data = SamplesModule(settings(tmp_path, seed=seed), GrammarPrompts(), encoder, EosOnward(), seed)
        data.setup()
        folders.add(data.held_out.folder)
    assert len(folders) == 1


@pytest.mark.parametrize("name", ["size", "held_out", "batch_size"])
def test_refuses_bad_numbers(tmp_path: Path, name: str):
    with pytest.raises(UserError, match=f"data.{name}"):
        settings(tmp_path, **{name: 0})


def test_refuses_bad_keep(tmp_path: Path):
    with pytest.raises(UserError, match=r"data\.keep is states or tokens; got 'pictures'"):
        settings(tmp_path, keep="pictures")


def test_refuses_bad_like_lengths(tmp_path: Path):
    with pytest.raises(UserError, match=r"data\.like_lengths is true, false or auto; got 'no'"):
        settings(tmp_path, like_lengths="no")


def test_truncated_texts_are_counted(tmp_path: Path, encoder: TextEncoder):
    long = Sample("red hair " * 60, ("red hair " * 60,))
    cache = build_cache(tmp_path, {}, iter([long, Sample("cat", ("cat",))]), 2, encoder, "samples")
    assert cache.header["truncated"] == 1
    assert np.array_equal(cache.length, [77, 3])
