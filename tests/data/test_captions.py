"""Captions of every kind of file: read right, or refused with the line, and nothing in silence."""

from __future__ import annotations

import bz2
import csv
import gc
import gzip
import io
import json
import lzma
import re
import sys
import tracemalloc
import types
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deproj.data.captions import json_files
from deproj.data.captions.open import KINDS, READERS, read_captions
from deproj.data.captions.spool import Spool
from deproj.process.errors import UserError

TEXTS = ["1girl, white hair, in city", "cat maid", "naïve 猫", 'a "quoted" sign', "red; green"]


def as_csv(separator: str = ",", end: str = "\r\n", header: tuple[str, ...] = ("caption", "n")) -> str:
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator=end).writerows([header, *([text, k] for k, text in enumerate(TEXTS))])
    return file.getvalue()


def as_json(**more: object) -> str:
    return json.dumps([{"caption": text, "id": k} for k, text in enumerate(TEXTS)], **more)  # type: ignore[arg-type]


def as_lines(name: str = "caption") -> str:
    return "".join(json.dumps({name: text, "id": k}) + "\n" for k, text in enumerate(TEXTS))


def coco(where: str = "annotations") -> str:
    images = [{"id": k, "file_name": f"{k}.jpg"} for k in range(3)]
    return json.dumps({"info": {"year": 2014}, "images": images, where: [{"id": k, "caption": t} for k, t in enumerate(TEXTS)]})


def zst(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as file:
        file.write(content)
    return sink.getvalue().to_pybytes()


LINES = "\n".join(TEXTS)
#: Each kind: name of the file, its content, the column that is asked for. All hold `TEXTS`.
READ: dict[str, tuple[str, str | bytes, str | None]] = {
    "lines": ("a.txt", LINES, None),
    "capitals": ("A.TXT", LINES, None),
    "carriage returns": ("a.txt", "\r".join(TEXTS), None),
    "both ends": ("a.txt", "\r\n".join(TEXTS), None),
    "marked UTF-8": ("a.txt", LINES.encode("utf-8-sig"), None),
    "UTF-16, little": ("a.txt", b"\xff\xfe" + LINES.encode("utf-16-le"), None),
    "UTF-16, big": ("a.txt", b"\xfe\xff" + LINES.encode("utf-16-be"), None),
    "UTF-32": ("a.txt", LINES.encode("utf-32"), None),
    "two marks, of joined files": ("a.txt", "\n".join([TEXTS[0], "\ufeff" + TEXTS[1], *TEXTS[2:]]), None),
    "gz": ("a.txt.gz", gzip.compress(LINES.encode()), None),
    "gz of two members": ("a.txt.gz", gzip.compress(LINES[:30].encode()) + gzip.compress(LINES[30:].encode()), None),
    "bz2": ("a.txt.bz2", bz2.compress(LINES.encode()), None),
    "xz": ("a.txt.xz", lzma.compress(LINES.encode()), None),
    "zst": ("a.csv.zst", zst(as_csv().encode()), None),
    "csv": ("a.csv", as_csv(), "caption"),
    "csv, column left out": ("a.csv", as_csv(), None),
    "CSV": ("A.CSV", as_csv(), None),
    "csv, LF": ("a.csv", as_csv(end="\n"), None),
    "csv, CR": ("a.csv", as_csv(end="\r"), None),
    "csv, marked": ("a.csv", as_csv().encode("utf-8-sig"), None),
    "csv, UTF-16": ("a.csv", as_csv().encode("utf-16"), None),
    "csv, semicolons": ("a.csv", as_csv(";"), None),
    "csv, tabs": ("a.csv", as_csv("\t"), None),
    "csv, named separator": ("a.csv", "sep=;\r\n" + as_csv(";"), None),
    "csv, gz": ("a.csv.gz", gzip.compress(as_csv().encode()), None),
    "csv, odd name alone": ("a.csv", as_csv(header=("description", "n")), None),
    "csv, spaces around names": ("a.csv", as_csv(header=(" caption ", " n")), "caption"),
    "csv, spaces after separators": (
        "a.csv",
        "n, caption\n" + "".join(f'{k}, "{t}"\n' for k, t in enumerate(text.replace('"', '""') for text in TEXTS)),
        None,
    ),
    "csv, empty fields behind": ("a.csv", as_csv().replace("\r\n", ",,\r\n"), "caption"),
    "tsv": ("a.tsv", as_csv("\t"), None),
    "json, a list": ("a.json", as_json(), None),
    "json, indented": ("a.json", as_json(indent=1), "caption"),
    "json, of texts": ("a.json", json.dumps(TEXTS), None),
    "json, COCO": ("a.json", coco(), None),
    "json, one list in an object": ("a.json", json.dumps({"version": 1, "data": json.loads(as_json())}), None),
    "json, by pictures": ("a.json", json.dumps({f"{k}.jpg": {"caption": t, "id": k} for k, t in enumerate(TEXTS)}), None),
    "json, texts by pictures": ("a.json", json.dumps({f"{k}.jpg": t for k, t in enumerate(TEXTS)}), None),
    "json, a list of a name": ("a.json", json.dumps({"id": [1, 2], "caption": TEXTS}), "caption"),
    "json, lines": ("a.json", as_lines(), None),
    "jsonl": ("a.jsonl", as_lines(), None),
    "JSONL": ("A.JSONL", as_lines(), "caption"),
    "jsonl, gz": ("a.jsonl.gz", gzip.compress(as_lines().encode()), None),
    "jsonl, one column of texts": ("a.jsonl", as_lines("description"), None),
    "jsonl, of texts": ("a.jsonl", "".join(json.dumps(t) + "\n" for t in TEXTS), None),
    "jsonl, lists": ("a.jsonl", json.dumps({"captions": TEXTS[:3]}) + "\n" + json.dumps({"captions": TEXTS[3:]}), None),
    "jsonl, within objects": (
        "a.jsonl",
        "".join(json.dumps({"caption": {"en": t, "de": "x"}}) + "\n" for t in TEXTS),
        "caption.en",
    ),
    "jsonl, in lists of objects": ("a.jsonl", json.dumps({"sentences": [{"raw": t} for t in TEXTS]}), "sentences.raw"),
    "jsonl, a dot in a name": ("a.jsonl", as_lines("caption.en"), "caption.en"),
    "jsonl, numbers beside": (
        "a.jsonl",
        "".join(json.dumps({"caption": k, "text": t}) + "\n" for k, t in enumerate(TEXTS)),
        None,
    ),
}


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("kind", READ)
def test_what_is_read(tmp_path: Path, kind: str):
    name, content, column = READ[kind]
    read = read_captions(str(written(tmp_path, name, content)), column)
    assert list(read.texts()) == TEXTS
    assert read.reading.captions == len(TEXTS)
    assert not read.reading.noteworthy, str(read)


#: Each kind: name of the file, its content, the column that is asked for, and what the refusal says.
REFUSED: dict[str, tuple[str, str | bytes, str | None, str]] = {
    "more fields": ("a.csv", "id,caption\n0,cat\n1,1girl, blue hair\n", None, r"line 3: 3 fields under 2 names; put a text"),
    "more fields, first column, no spaces": ("a.csv", "caption,by\ncat,red,me\n", None, "line 2: 3 fields under 2 names"),
    "more fields, a space after each comma": (
        "a.csv",
        "caption, by\na cat, red, me\na dog, me\n",
        None,
        "line 2: 3 fields under 2 names",
    ),
    "more fields, one name": ("a.csv", "caption\ncat\n1girl,red hair\n", None, "line 3: 2 fields under 1 name;"),
    "more fields, semicolons": ("a.csv", "n;caption\n1;a;b\n", None, "line 2: 3 fields"),
    "more fields, tabs": ("a.tsv", "caption\tn\na\tb\tc\n", None, "line 2: 3 fields"),
    "quote never closed": ("a.csv", 'caption\n"cat"\n"dog\n', None, "line 3: a quote that opens here never closes"),
    "quote closed by the next": (
        "a.csv",
        'caption\n"cat"\n"dog\n"maid"\n',
        None,
        r"line 3: a quote that opens here closes within a text",
    ),
    "quote closed within": ("a.csv", 'caption\n"cat" maid\n', None, "line 2: a quote that opens here closes within"),
    "quote escaped by a backslash": ("a.csv", 'caption\n"a \\"cat\\" maid"\n', None, "line 2: a quote"),
    "quotes of a word processor": ("a.csv", "caption,n\n“cat”,0\n", None, "line 2: its quotes are typographic"),
    "quotes of a word processor, commas": ("a.csv", "caption,n\n“cat, maid”,0\n", None, "line 2: its quotes are typographic"),
    "quotes, German": ("a.csv", "n;caption\n1;„Katze“\n", None, "line 2: its quotes are typographic"),
    "two columns of one name": ("a.csv", "caption,caption\na,b\n", None, "two columns of the name 'caption'"),
    "a list as a text": ("a.csv", "caption,n\n\"['cat', 'maid']\",1\n", None, "line 2: a list or an object is written as a text"),
    "a JSON list as a text": ("a.tsv", 'n\tcaption\n1\t"[""cat"", ""maid""]"\n', None, "line 2: a list or an object"),
    "no header": ("a.csv", '"1girl, red hair"\n"cat"\n', None, "where the column's name is needed"),
    "csv, wrong column": ("a.csv", as_csv(), "text", "no column 'text'; it has: caption, n"),
    "csv, two columns of texts": ("a.csv", "a,b\nx,y\n", None, r"needs data\.column=.*: a, b"),
    "csv, numbers": ("a.csv", as_csv(), "n", r"line 2: .* holds numbers \(0\).* Of texts: caption"),
    "csv, numbers alone": ("a.csv", "n\n1\n2\n", None, "no column of texts; it has: n"),
    "json, numbers": ("a.jsonl", '{"caption": 0, "text": "a"}\n', "caption", r"line 1: .* holds a number \(0\).* Of texts: text"),
    "json, a number further on": (
        "a.jsonl",
        as_lines() + '{"caption": 7}\n',
        None,
        r"line 6: the column 'caption' holds a number \(7\)",
    ),
    "json, booleans": ("a.jsonl", '{"caption": true}\n', "caption", "true or false"),
    "json, objects": ("a.jsonl", '{"caption": {"en": "a"}}\n', "caption", "an object of en"),
    "json, several languages": (
        "a.jsonl",
        '{"caption": {"en": "a", "de": "b"}}\n',
        None,
        r"needs data\.column=.*caption\.en, caption\.de",
    ),
    "json, no object": ("a.jsonl", "3\n", None, "a number"),
    "json, cut off": ("a.jsonl", as_lines()[:-9], None, "line 5: the last line is cut off"),
    "json, broken within": ("a.jsonl", as_lines().replace("}", "", 1), None, "line 1 is not JSON"),
    "json, a name twice": (
        "a.jsonl",
        '{"caption": "a", "caption": "b"}\n',
        None,
        "line 1 is not JSON: an object has two members of the name 'caption'",
    ),
    "json, deep": ("a.jsonl", "[" * 100_000, None, "nested too deeply"),
    "json, document named lines": ("a.jsonl", as_json(indent=1), None, r"line 1 is not JSON by itself; .*\.json"),
    "json, document cut off": ("a.json", as_json(indent=1)[:-20], None, "cut off"),
    "json, document cut off in COCO": ("a.json", coco()[:-30], None, "cut off"),
    "json, something behind": ("a.json", as_json() + "x", None, "nothing may follow"),
    "json, two lists": ("a.json", json.dumps({"a": TEXTS, "b": TEXTS}), None, r"several lists; name .*: a, b"),
    "json, half a letter": (
        "a.jsonl",
        as_lines() + '{"caption": "cat \\ud83d"}\n',
        None,
        r"line 6: the text has half a letter \(U\+D83D",
    ),
    "Latin-1": ("a.txt", "cat\nélan de la maison rouge\n".encode("latin-1"), None, "not UTF-8, from line 2 on .*Windows-1252"),
    "Shift-JIS": ("a.txt", "cat\n白い髪の女の子\n".encode("cp932"), None, "not UTF-8, from line 2 on .*Shift-JIS"),
    "UTF-16 without mark": ("a.txt", LINES.encode("utf-16-le"), None, r"UTF-16 \(little-endian\) without its mark"),
    "UTF-16 cut off": ("a.txt", LINES.encode("utf-16")[:-1], None, "not UTF-16"),
    "gz, cut off": ("a.txt.gz", gzip.compress(LINES.encode() * 99)[:-20], None, "cut off"),
    "gz, damaged": ("a.txt.gz", b"\x1f\x8b\x08\x00rubbish and more of it", None, "a.txt.gz"),
    "gz, not named so": ("a.txt", gzip.compress(LINES.encode()), None, r"end its name in \.gz"),
    "gz, only in name": ("a.txt.gz", LINES, None, "a.txt.gz"),
    "xlsx": ("a.csv", b"PK\x03\x04rest", None, "a spreadsheet; .*save it as CSV"),
    "pointer": ("a.txt", "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n", None, "git lfs pull"),
    "nothing": ("a.csv", "", None, "no texts"),
    "only a header": ("a.csv", "caption,n\n", None, "no texts"),
    "only blanks": ("a.jsonl", '{"caption": " "}\n{"caption": null}\n', "caption", r"no texts. \(2 are empty.\)"),
    "only zeros": ("a.txt", b"\0\0\0\0\0", None, "UTF-16"),
    "a column of lines": ("a.txt", LINES, "caption", "has no columns"),
    "another kind": ("a.docx", b"PK", None, r"read from \.txt, \.csv"),
    "parquet in name": ("a.parquet", b"PAR1 no", None, "cannot be read as parquet"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(tmp_path: Path, kind: str):
    name, content, column, said = REFUSED[kind]
    with pytest.raises(UserError, match=said) as error:
        read_captions(str(written(tmp_path, name, content)), column)
    assert str(error.value).count("\n") <= 1


#: Each kind: name of the file, its content, the texts that are read, and what is said of them.
TOLD: dict[str, tuple[str, str, list[str], str]] = {
    "blank lines": ("a.txt", "cat\n\n  \nmaid\n", ["cat", "maid"], "2 captions of .*, 2 empty left out"),
    "nulls": ("a.jsonl", '{"caption": null}\n{"caption": "  "}\n{"caption": "cat"}\n{"id": 3}\n', ["cat"], "3 empty left out"),
    "nulls of a data frame": (
        "a.csv",
        "caption,n\nNaN,1\nNULL,2\n\\N,3\nnull hypothesis,4\n",
        ["null hypothesis"],
        "3 empty left out",
    ),
    "short rows": ("a.csv", "caption,by\ncat,me\nmaid\n", ["cat", "maid"], "1 row shorter"),
    "short rows, text last": ("a.csv", "n,caption\n1,cat\n2\n", ["cat"], "1 empty left out, 1 row shorter"),
    "bare commas": (
        "a.csv",
        "caption,by\ncat, maid,me\nyellow eye, 1girl\n",
        ["cat, maid", "yellow eye, 1girl"],
        "2 with commas that no quotes",
    ),
    "zeros": ("a.txt", "cat\0\nmaid of the house\n", ["cat", "maid of the house"], r"U\+0000 taken out of 1"),
    "ends": ("a.txt", "cat <|endoftext|> maid\n<|StartOfText|>dog\n", ["cat   maid", "dog"], "tokens taken out of 2"),
    "ends in ends": ("a.txt", "cat <|end<|endoftext|>oftext|> maid\n", ["cat <|end oftext|> maid"], "taken out of 1"),
    "marks": ("a.txt", "(cat:1.2), maid\n", ["(cat:1.2), maid"], r"1 with the web's marks, such as \(cat:1\.2\)"),
    "nothing to see": ("a.txt", "\u200b\ncat\n", ["cat"], "1 empty left out"),
}


@pytest.mark.parametrize("kind", TOLD)
def test_what_is_told_and_gone_on_with(tmp_path: Path, kind: str):
    name, content, texts, said = TOLD[kind]
    read = read_captions(str(written(tmp_path, name, content)))
    assert list(read.texts()) == texts
    assert read.reading.noteworthy
    assert re.search(said, str(read)), str(read)
    assert "\n" not in str(read)


def test_marks_are_stripped_where_that_is_asked_for(tmp_path: Path):
    path = written(tmp_path, "a.txt", "((cat)), (red hair:1.2), <lora:x:0.8>, BREAK [blue|green] eye\nmaid\n")
    read = read_captions(str(path), marks="strip")
    assert list(read.texts()) == ["cat, red hair, blue green eye", "maid"]
    assert "1 with the web's marks" in str(read)
    assert "taken out" in str(read)


@pytest.mark.parametrize(
    ("columns", "asked", "found"),
    [
        ({"caption": TEXTS}, None, TEXTS),
        ({"caption": TEXTS, "n": list(range(5))}, None, TEXTS),
        ({"n": [1, 2], "captions": [TEXTS[:2], TEXTS[2:]]}, None, TEXTS),
        ({"caption": [{"en": text, "n": 1} for text in TEXTS]}, "caption.en", TEXTS),
        ({"image": [{"bytes": b"x", "path": "x.jpg"}] * 5, "text": TEXTS}, None, TEXTS),
        ({"caption": [*TEXTS, None, " "]}, "caption", TEXTS),
        ({"caption": pyarrow.array(TEXTS).dictionary_encode()}, None, TEXTS),
        ({"caption": pyarrow.array(TEXTS, pyarrow.large_string())}, None, TEXTS),
        ({"caption": [1, 2], "text": ["a", "b"]}, "caption", r"a number \(1\).* Of texts: text"),
        ({"caption": [True, False]}, "caption", "true or false"),
        ({"caption": [b"cat"]}, "caption", "bytes"),
        ({"caption": [{"en": "a"}]}, "caption", "an object of en"),
        ({"caption": [1.5]}, None, r"row 1: the column 'caption' holds a number \(1\.5\)"),
        ({"a": ["x"], "b": ["y"]}, None, r"needs data\.column="),
        ({"a": ["x"]}, "caption", "no column 'caption'; it has: a"),
        ({"caption": pyarrow.array([], pyarrow.string())}, None, "no texts"),
    ],
)
def test_parquet(tmp_path: Path, columns: dict[str, object], asked: str | None, found: list[str] | str):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", row_group_size=2)
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            read_captions(str(tmp_path / "a.parquet"), asked)
    else:
        assert list(read_captions(str(tmp_path / "a.parquet"), asked).texts()) == found


def test_parquet_with_two_columns_of_one_name(tmp_path: Path):
    table = pyarrow.Table.from_arrays([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["caption", "caption"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match="two columns of the name 'caption'"):
        read_captions(str(tmp_path / "a.parquet"))


#: Folders and patterns: files with their content, what is asked for below the folder, and the texts.
FOLDERS: dict[str, tuple[dict[str, str], str, list[str]]] = {
    "a text beside each picture": ({"1.png": "", "1.txt": "cat,\nmaid\n", "2.jpg": "", "2.txt": "dog"}, "", ["cat, maid", "dog"]),
    "folders of pictures": (
        {"10_cat/1.png": "", "10_cat/1.txt": "cat", "5_dog/2.webp": "", "5_dog/2.txt": "dog"},
        "",
        ["cat", "dog"],
    ),
    "kohya's own ending": ({"1.png": "", "1.caption": "cat\nmaid"}, "", ["cat maid"]),
    "a text beside no picture": (
        {"1.png": "", "1.txt": "cat", "classes.txt": "a\nb"},
        "",
        ["cat"],
    ),
    "shards": ({"b.txt": "3\n4", "a.txt": "1\n2"}, "", ["1", "2", "3", "4"]),
    "a pattern": ({"b.csv": "caption\ny", "a.csv": "caption\nx", "c.txt": "z"}, "*.csv", ["x", "y"]),
    "a pattern of folders": ({"x/a.jsonl": '{"text": "one"}', "y/a.jsonl": '{"text": "two"}'}, "**/*.jsonl", ["one", "two"]),
    "metadata of pictures": (
        {"1.png": "", "metadata.jsonl": '{"file_name": "1.png", "text": "cat"}', "x.txt": "no"},
        "",
        ["cat"],
    ),
    "hidden files": ({".x.txt": "no", "a.txt": "cat"}, "", ["cat"]),
    "signs of a pattern in a name": ({"a[1].txt": "cat"}, "a[1].txt", ["cat"]),
    "compressed shards": ({"a.csv": "caption\nx"}, "a.csv", ["x"]),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_folders_and_patterns(tmp_path: Path, kind: str):
    files, asked, texts = FOLDERS[kind]
    for name, content in files.items():
        written(tmp_path, name, content)
    assert list(read_captions(str(tmp_path / asked) if asked else str(tmp_path)).texts()) == texts


def test_texts_beside_no_picture_are_told(tmp_path: Path):
    for name in ("1.png", "1.txt", "2.txt"):
        written(tmp_path, name, "cat")
    assert str(read_captions(str(tmp_path))) == f"1 caption of {tmp_path}, 1 text file beside no picture left out."


@pytest.mark.parametrize("packed", [False, True])
def test_the_line_is_told_far_into_a_file(tmp_path: Path, packed: bool):
    content = b"a picture of many things\n" * 20_000 + "d\xe9j\xe0 vu, a picture of the sea\n".encode("latin-1") + b"more\n" * 9
    path = written(tmp_path, "a.txt.gz" if packed else "a.txt", gzip.compress(content) if packed else content)
    with pytest.raises(UserError, match=r"from line 20001 on .*Windows-1252"):
        read_captions(str(path))


def test_a_path_in_ones_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path, "a.txt", "cat")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert list(read_captions("~/a.txt").texts()) == ["cat"]


class FakeData:
    """As much of a data set of `datasets` as is asked for."""

    def __init__(self, columns: dict[str, list[object]]) -> None:
        self.columns, self.features = columns, dict.fromkeys(columns, "any")

    def select_columns(self, names: list[str]) -> FakeData:
        return FakeData({name: self.columns[name] for name in names})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: slice) -> dict[str, list[object]]:
        return {name: values[rows] for name, values in self.columns.items()}


@pytest.mark.parametrize(
    ("columns", "asked", "found"),
    [
        ({"text": TEXTS * 500}, None, TEXTS * 500),
        ({"n": [1, 2], "captions": [TEXTS[:2], TEXTS[2:]]}, None, TEXTS),
        ({"caption": [{"en": text} for text in TEXTS]}, "caption.en", TEXTS),
        ({"n": [1], "text": ["a"]}, "n", r"row 1: the column 'n' holds a number \(1\).* Of texts: text"),
        ({"a": ["x"]}, "text", "no column 'text'; it has: a"),
    ],
)
def test_data_sets_of_the_hub(
    columns: dict[str, list[object]], asked: str | None, found: list[str] | str, monkeypatch: pytest.MonkeyPatch
):
    module = types.ModuleType("datasets")
    module.load_dataset = lambda name, split: FakeData(columns)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            read_captions("hub:some/captions", asked)
    else:
        read = read_captions("hub:some/captions", asked)
        assert list(read.texts()) == found
        assert str(read).startswith(f"{len(found):,} captions of some/captions (column ")


@pytest.mark.parametrize(
    ("files", "asked", "said"),
    [
        ({"a.csv": "caption\nx", "b.txt": "y"}, "", r"several kinds \(1 \.csv, 1 \.txt\)"),
        ({"a.png": ""}, "", "holds no captions"),
        ({"a.png": ""}, "*.png", "read from"),
        ({"a.txt": "x"}, "*.csv", "no prompts file fits the pattern"),
        ({"a.txt": "x"}, "b.txt", "no prompts file at"),
        ({"a.csv": "caption\nx", "b.csv": "text\ny"}, "*.csv", "'caption' in some files, 'text' in others"),
        ({"a.csv": "caption\nx", "b.csv": 'caption\n"y\n'}, "*.csv", r"b\.csv, line 2"),
    ],
)
def test_folders_that_are_refused(tmp_path: Path, files: dict[str, str], asked: str, said: str):
    for name, content in files.items():
        written(tmp_path, name, content)
    with pytest.raises(UserError, match=said):
        read_captions(str(tmp_path / asked) if asked else str(tmp_path))


ENDS = ("\n", "\r", "\r\n")
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-32")
#: Texts as they are trained on: no ends of lines, nothing that is taken out.
plain_texts = st.text(
    st.characters(exclude_categories=("C", "Z"), exclude_characters='()[]{}<>|+-,;"“„‟«‘‚\ufeff') | st.just(" "),
    min_size=1,
    max_size=30,
).filter(lambda text: text == text.strip() and text.isprintable() and "BREAK" not in text)
trial = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@trial
@given(
    texts=st.lists(plain_texts, min_size=1, max_size=8),
    end=st.sampled_from(ENDS),
    encoding=st.sampled_from(ENCODINGS),
    packed=st.booleans(),
)
def test_lines_come_back(tmp_path: Path, texts: list[str], end: str, encoding: str, packed: bool):
    content = end.join(texts).encode(encoding)
    path = written(tmp_path, "a.txt.gz" if packed else "a.txt", gzip.compress(content) if packed else content)
    assert list(read_captions(str(path)).texts()) == texts


@trial
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufdd0"), max_size=20), min_size=1, max_size=8),
    separator=st.sampled_from(",;\t"),
    end=st.sampled_from(ENDS),
)
def test_what_csv_writes_is_read_back(tmp_path: Path, texts: list[str], separator: str, end: str):
    """Whatever stands in a text, if it is quoted: separators, quotes, ends of lines."""
    texts = [f"x{text}x" for text in texts]
    file = io.StringIO(newline="")
    rows = [("caption", "n"), *((text, "1") for text in texts)]
    csv.writer(file, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_ALL).writerows(rows)
    path = written(tmp_path, "a.csv", file.getvalue())
    assert list(read_captions(str(path), "caption").texts()) == texts


@trial
@given(
    texts=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), min_size=1, max_size=8),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    kind=st.sampled_from([".json", ".jsonl"]),
    piece=st.integers(1, 50),
)
def test_what_json_writes_is_read_back(
    tmp_path: Path, texts: list[str], ascii_only: bool, indent: int | None, kind: str, piece: int
):
    """Wherever a piece of the file ends."""
    texts = [f"x{text}x" for text in texts]
    rows = [{"caption": text, "n": 1.5} for text in texts]
    if kind == ".json":
        content = json.dumps({"info": {"n": 12}, "annotations": rows}, indent=indent, ensure_ascii=ascii_only)
    else:
        content = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path = written(tmp_path, f"a{kind}", content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_files, "PIECE", piece)
        assert list(read_captions(str(path), "caption").texts()) == texts


#: Out of which files are made that are nearly right.
SIGNS = [
    '"',
    ",",
    ";",
    "\n",
    "\r",
    "\t",
    "{",
    "}",
    "[",
    "]",
    ":",
    "caption",
    "cat",
    "“",
    "”",
    "1",
    "null",
    "\\",
    "\0",
    " ",
    "\ufeff",
    "é",
    "sep=;",
]
SOUP = st.lists(st.sampled_from(SIGNS)).map("".join)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(
    content=st.binary(max_size=60)
    | SOUP.map(str.encode)
    | SOUP.map(lambda text: text.encode("utf-16"))
    | SOUP.map(str.encode).map(gzip.compress),
    kind=st.sampled_from(
        [".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt.gz", ".csv.gz", ".json.bz2", ".csv.xz", ".jsonl.zst"]
    ),
    column=st.sampled_from([None, "caption", "caption.en"]),
)
def test_no_content_gives_a_traceback(tmp_path: Path, content: bytes, kind: str, column: str | None):
    path = written(tmp_path, f"a{kind}", content)
    try:
        texts = list(read_captions(str(path), column).texts())
    except UserError:
        return
    assert texts
    assert all(text and text == text.strip() and "\0" not in text for text in texts)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (",\n\n", "line 1: no column has a name"),
        (",\ncat,maid\n", "line 1: no column has a name"),
        ('""\ncat\n', "line 1: no column has a name"),
        (",b\na black cat,\na red maid,\n", "the column of the captions has no name"),
    ],
)
def test_columns_without_a_name_are_refused(tmp_path: Path, content: str, said: str):
    with pytest.raises(UserError, match=said):
        list(read_captions(str(written(tmp_path, "a.csv", content.encode()))).texts())


def test_a_large_document_is_read_in_little(tmp_path: Path):
    path = tmp_path / "a.json"
    images, captions = (
        [{"id": k, "file_name": "x" * 50} for k in range(20_000)],
        [{"caption": f"text {k}" * 9} for k in range(40_000)],
    )
    path.write_text(json.dumps({"images": images, "annotations": captions}), encoding="utf-8")
    tracemalloc.start()
    read = read_captions(str(path), folder=tmp_path / "cache")
    assert sum(1 for _ in read.texts()) == 40_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6 < path.stat().st_size


def test_the_spool_keeps_blocks_and_closes_its_file(tmp_path: Path):
    spool = Spool(tmp_path / "new" / "folder")
    texts = [f"{k} {'x' * 400}\n naïve" for k in range(4000)]
    for text in texts:
        spool.add(text)
    assert len(spool) > 10
    assert [text for k in range(len(spool)) for text in spool[k]] == texts
    assert spool[3] == spool[3]
    file = spool.file
    del spool
    gc.collect()
    assert file.closed
    assert not list((tmp_path / "new" / "folder").iterdir())


def test_a_folder_that_can_not_be_written_is_no_hindrance(tmp_path: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    spool = Spool(tmp_path / "file" / "below")
    spool.add("x" * (Spool.MEMORY + 1))
    assert len(spool[0][0]) == Spool.MEMORY + 1


def test_every_kind_has_a_reader():
    """One that is listed and has none would be read as another kind."""
    assert set(KINDS) <= set(READERS)
    assert set(READERS) - set(KINDS) == {".caption"}, "which is read in folders alone"
