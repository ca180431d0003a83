"""Texts: held out is held out, in every way a sample is made; files good and bad."""

import csv
import hashlib
import itertools
import json
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from deproj.data.captions.spool import Spool
from deproj.data.mix import Mix
from deproj.data.sources import GrammarPrompts, ListedPrompts, PromptSource, open_prompts
from deproj.pixel import grammar
from deproj.process.errors import UserError
from deproj.texts.benchmark import COMPOSED, SINGLE, words_of


def listed_prompts(path: Path, column: str | None = None) -> ListedPrompts:
    source = open_prompts(str(path), column)
    assert isinstance(source, ListedPrompts)
    return source


@pytest.fixture
def listed(tmp_path: Path) -> PromptSource:
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"number {n} of many\n" for n in range(200)) + "cat maid\n", encoding="utf-8")
    return listed_prompts(path)


@pytest.fixture(params=["grammar", "listed"])
def source(request: pytest.FixtureRequest, listed: PromptSource) -> PromptSource:
    return GrammarPrompts() if request.param == "grammar" else listed


@pytest.mark.parametrize("parts", [2, 5])
@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_no_text_of_training_is_held_out(source: PromptSource, seed: int, parts: int):
    benchmark = {words_of(text) for text in SINGLE + COMPOSED}
    wholes = []
    for sample in Mix(0.4, 0.4, 100, parts).samples(source, 1500, seed):
        for text in (sample.whole, *sample.parts):
            assert not source.held_out(text)
            assert words_of(text) not in benchmark
        wholes.append(sample)
    assert [s for s in wholes if s.whole == ""], "the empty prompt is among them"
    kinds = [len(s.parts) for s in wholes]
    assert 0.6 < sum(kind > 1 for kind in kinds) / len(kinds) < 0.9
    assert wholes == list(Mix(0.4, 0.4, 100, parts).samples(source, 1500, seed)), "the same from the same seed"


def test_every_testing_text_is_held_out(source: PromptSource):
    texts = list(itertools.islice(source.testing(0), 50))
    assert all(map(source.held_out, texts))


def test_shares_are_kept_to():
    samples = list(Mix(split=0, combine=0).samples(GrammarPrompts(), 300, 0))
    assert all(sample.parts == (sample.whole,) for sample in samples)
    samples = list(Mix(split=0, combine=1).samples(GrammarPrompts(), 300, 0))
    assert all(sample.whole in (" ".join(sample.parts), "") or len(sample.parts) == 1 for sample in samples)
    joined = [sample for sample in samples if len(sample.parts) == 2 and sample.whole == " ".join(sample.parts)]
    assert len(joined) > 200


def test_two_parts_are_those_of_before():
    """Caches of before stay valid: the same samples under the same key."""
    mix = Mix()
    drawn = [*mix.samples(GrammarPrompts(), 500, 0), *mix.testing(GrammarPrompts(), 100)]
    texts = repr([(sample.whole, sample.parts) for sample in drawn])
    assert hashlib.sha256(texts.encode()).hexdigest()[:16] == "63997862126e1899"
    assert mix.key == {"split": 0.3, "combine": 0.3, "empty_every": 10_000}


@pytest.mark.parametrize("parts", [3, 5])
def test_many_parts_are_all_of_the_text_in_its_order(parts: int):
    samples = list(Mix(0.4, 0.4, parts=parts).samples(GrammarPrompts(), 2000, 0))
    counts = Counter(len(sample.parts) for sample in samples)
    assert set(counts) == set(range(1, parts + 1))
    assert min(counts.values()) > 0.05 * len(samples)
    for sample in samples:
        assert [words_of(part) for part in sample.parts if not words_of(part)] == [] or sample.whole == ""
        assert " ".join(words_of(part) for part in sample.parts) == words_of(sample.whole), "nothing is lost or moved"
        if len(sample.parts) > 1:
            assert not any(part.startswith((" ", ",")) or part.endswith((" ", ",")) for part in sample.parts)
    at_commas = [sample for sample in samples if len(sample.parts) > 2 and all("," not in part for part in sample.parts)]
    assert at_commas


def test_a_text_of_few_words_has_few_parts():
    class Short(GrammarPrompts):
        def training(self, seed: int) -> Iterator[str]:
            return itertools.cycle(["cat", "red hair"])

    counts = Counter(len(sample.parts) for sample in Mix(1, 0, parts=5).samples(Short(), 100, 0))
    assert counts == {1: 50, 2: 50}


def test_what_would_be_truncated_is_split_instead():
    samples = list(Mix(split=0, combine=1).samples(GrammarPrompts(), 200, 0, fits=lambda text: False))
    for sample in samples:
        assert len(sample.parts) == 1 or len(sample.whole.split()) == sum(len(part.split()) for part in sample.parts)
        assert sample.whole.count(",") <= 8, "no two captions joined"
    assert any(len(sample.parts) == 2 for sample in samples)


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.6, 0.6)])
def test_refuses_bad_shares(shares: tuple[float, float]):
    with pytest.raises(UserError, match="shares"):
        Mix(*shares)


@pytest.mark.parametrize("parts", [1, 0, -2, 17])
def test_refuses_bad_numbers_of_parts(parts: int):
    with pytest.raises(UserError, match=r"data\.parts is 2 to 16"):
        Mix(parts=parts)


def write(path: Path, rows: list[dict[str, object]]) -> None:
    if path.suffix == ".csv":
        path.write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("kind", [".csv", ".jsonl", ".parquet"])
def test_reads_columns(tmp_path: Path, kind: str):
    path = tmp_path / f"texts{kind}"
    write(path, [{"id": n, "text": f" text number {n} "} for n in range(100)])
    source = listed_prompts(path, "text")
    assert list(source.texts()) == [f"text number {n}" for n in range(100)]
    with pytest.raises(UserError, match=r"no column 'caption'; it has: id, text"):
        listed_prompts(path, "caption")
    assert listed_prompts(path).fingerprint == source.fingerprint, "the one column of texts is found"


def test_fingerprint_follows_the_texts(tmp_path: Path):
    prints = set()
    for count in (100, 101):
        path = tmp_path / "texts.txt"
        path.write_text("".join(f"text {n}\n" for n in range(count)), encoding="utf-8")
        prints.add(listed_prompts(path).fingerprint)
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.txt", None, "no prompts file"),
        ("empty.txt", b"\n  \n", "no texts"),
        ("latin.txt", "élan\n".encode("latin-1") * 50, "not UTF-8"),
        ("texts.doc", b"x\n", "read from .txt"),
        ("bad.jsonl", b"{\n", "line 1 is not JSON"),
        ("list.jsonl", b"[1]\n", "no column"),
        ("bad.parquet", b"PAR1 but not really", "cannot be read"),
    ],
)
def test_refuses_bad_files(tmp_path: Path, name: str, content: bytes | None, said: str):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        open_prompts(str(path), None if name.endswith((".txt", ".doc")) else "text")


def test_few_texts_are_refused(tmp_path: Path):
    (tmp_path / "few.txt").write_text("one\n", encoding="utf-8")
    with pytest.raises(UserError, match="give more texts"):
        next(open_prompts(str(tmp_path / "few.txt")).training(0))


def test_columns_where_there_are_none(tmp_path: Path):
    (tmp_path / "a.txt").write_text("one\n", encoding="utf-8")
    with pytest.raises(UserError, match="has no columns"):
        open_prompts(str(tmp_path / "a.txt"), "text")
    with pytest.raises(UserError, match="no columns"):
        open_prompts("grammar", "text")


@pytest.mark.parametrize("text", SINGLE)
def test_composed_prompts_ask_for_what_single_ones_ask(text: str):
    composed = COMPOSED[SINGLE.index(text)]
    assert grammar.asked(text) == grammar.asked(composed)
    assert grammar.asked(text)


ODD = ("plain", 'a "quoted", one', "two\nlines", "  spaces ", "", "naïve 猫", "x" * 3000)


@pytest.mark.parametrize("kind", [".txt", ".csv", ".jsonl", ".parquet"])
def test_blocks_hold_every_text_once(tmp_path: Path, kind: str):
    """Whatever stands in a text: line breaks within quotes, letters of several bytes, a byte order mark."""
    texts = [f"{odd} {n}" if odd else "" for n in range(60) for odd in ODD if kind != ".txt" or "\n" not in odd]
    path = tmp_path / f"texts{kind}"
    if kind == ".txt":
        path.write_text("\ufeff" + "\r\n".join(texts), encoding="utf-8")
    elif kind == ".csv":
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            csv.writer(file).writerows([["text", "n"], *([text, 1] for text in texts)])
    elif kind == ".jsonl":
        path.write_text("\n\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"text": texts}), path, row_group_size=50)
    source = listed_prompts(path, None if kind == ".txt" else "text")
    assert len(source.blocks) >= 3
    wanted = [text.strip() for text in texts if text]
    assert list(source.texts()) == wanted
    kept = [text for text in wanted if not source.held_out(text)]
    for seed in (0, 1):
        drawn = list(itertools.islice(source.training(seed), 2 * len(kept)))
        assert sorted(drawn[: len(kept)]) == sorted(drawn[len(kept) :]) == sorted(kept)
        assert drawn[: len(kept)] != drawn[len(kept) :]
        assert drawn == list(itertools.islice(source.training(seed), 2 * len(kept)))


def test_a_share_comes_from_everywhere_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{n} {'x' * 500}\n" for n in range(4000)), encoding="utf-8")
    monkeypatch.setattr(ListedPrompts, "WINDOW", 200_000)  # a tenth of the file
    monkeypatch.setattr(Spool, "SIZE", 5_000)
    first = [int(text.split()[0]) for text in itertools.islice(listed_prompts(path).training(0), 800)]
    assert len({number // 400 for number in first}) == 10
    assert first != sorted(first)


def test_a_file_larger_than_memory_is_read_in_little(tmp_path: Path):
    path = tmp_path / "texts.txt"
    with path.open("w", encoding="utf-8") as file:
        for n in range(6000):
            file.write(f"{n} {'letters ' * 1000}\n")
    tracemalloc.start()
    source = listed_prompts(path)
    assert sum(1 for _ in itertools.islice(source.training(0), 6000)) == 6000
    assert source.trained_on([next(source.training(0)), "never seen"]) == [next(source.training(0))]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6 < path.stat().st_size
