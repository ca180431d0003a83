"""More of what users bring for captions: none of it is read as something else in silence, and none ends in a traceback."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import sys
import tarfile
import types
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from deproj.data.captions.open import read_captions
from deproj.data.sources import GrammarPrompts, ListedPrompts
from deproj.generate.asked import read_prompts
from deproj.measure.evaluator import prompts_of_file
from deproj.process.errors import UserError


def lines_of(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def tar(name: str) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w:gz", encoding="utf-8") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"cat\n"))
    return sink.getvalue()


#: Each kind: name of the file, its content, the texts, and what is said behind them.
READ: dict[str, tuple[str, str | bytes, list[str], str]] = {
    "csv, marked, all in quotes": ("a.csv", '"caption","n"\n"a, b",1\n'.encode("utf-8-sig"), ["a, b"], "caption)."),
    "csv, lines in quotes": ("a.csv", 'caption,n\n"a\r\nb",1\nc,2\n', ["a\r\nb", "c"], "1 of several lines"),
    "csv, tabs in texts": ("a.csv", "caption,n\na\tb,1\n", ["a\tb"], "caption)."),
    "csv, a quote within a text": ("a.csv", 'caption,n\na 6" ruler,1\n', ['a 6" ruler'], "caption)."),
    "csv, a typographic quote within": ("a.csv", "caption,n\nthe “cat” sat,1\n", ["the “cat” sat"], "caption)."),
    "csv, typographic quotes in quotes": ("a.csv", 'caption,n\n"“cat”",1\n', ["“cat”"], "caption)."),
    "csv, apostrophes": ("a.csv", "caption,n\n'tis a cat's toy,1\n", ["'tis a cat's toy"], "caption)."),
    "csv, semicolons and a comma in a name": ("a.csv", "caption;note, extra\na;b\n", ["a"], "caption)."),
    "csv, bars": ("a.csv", "caption|n\na, b|1\n", ["a, b"], "caption)."),
    "csv, blank lines before and between": ("a.csv", "\n\ncaption,n\n\na,1\n", ["a"], "1 empty left out"),
    "csv, ends of lines of all kinds": ("a.csv", "caption,n\r\na,1\nb,2\rc,3\r\n", ["a", "b", "c"], "caption)."),
    "csv, names of files beside": ("a.csv", "file,label\n1.jpg,cat\n2.jpg,dog\n", ["cat", "dog"], "label)."),
    "csv, addresses beside": ("a.csv", "url,alt\nhttps://x/1.jpg,cat\nhttps://x/2.jpg,dog\n", ["cat", "dog"], "alt)."),
    "csv, true and false beside": ("a.csv", "nsfw,tags\nTrue,cat\nFalse,dog\n", ["cat", "dog"], "tags)."),
    "csv, a field of megabytes": ("a.csv", f'caption,n\n"{"x y " * 100_000}",1\n', [("x y " * 100_000).strip()], "caption)."),
    "csv, nulls of every program": ("a.csv", "caption,n\nNA,1\n#N/A,2\n(null),3\ncat,4\n", ["cat"], "3 empty left out"),
    "json, under data": ("a.json", json.dumps({"data": [{"caption": "a"}]}), ["a"], "caption)."),
    "json, under data in an object": ("a.json", json.dumps({"result": {"data": [{"caption": "a"}]}}), ["a"], "data.caption)."),
    "json, lists as columns": ("a.json", json.dumps({"caption": ["a", "b"], "id": ["x", "y"]}), ["a", "b"], "2 captions"),
    "json, a data frame": ("a.json", json.dumps({"caption": {"0": "a", "1": "b"}, "id": {"0": 1, "1": 2}}), ["a", "b"], "2 capt"),
    "json, rows of nothing": ("a.json", '[null, {"caption": "a"}, {}]', ["a"], "2 empty left out"),
    "json, NaN for nothing": ("a.jsonl", '{"caption": NaN}\n{"caption": "a"}\n', ["a"], "1 empty left out"),
    "json, nulls as texts": ("a.jsonl", lines_of({"caption": "nan"}, {"caption": "a"}, {"caption": "None"}), ["a"], "2 empty"),
    "json, empty lists": ("a.jsonl", lines_of({"captions": []}, {"captions": ["a", None]}), ["a"], "2 empty left out"),
    "json, signs beyond the basic plane": ("a.jsonl", '{"caption": "cat \\ud83d\\ude00"}\n', ["cat 😀"], "caption)."),
    "json, U+0000 as an escape": ("a.jsonl", '{"caption": "ca\\u0000t"}\n', ["cat"], "U+0000 taken out of 1"),
    "json, U+2028": ("a.jsonl", '{"caption": "a\u2028b"}\n', ["a\u2028b"], "caption)."),
    "json, files joined with their marks": ("a.jsonl", '{"caption": "a"}\n\ufeff{"caption": "b"}\n', ["a", "b"], "caption)."),
    "json, CR": ("a.jsonl", '{"caption": "a"}\r{"caption": "b"}\r', ["a", "b"], "caption)."),
    "json, UTF-16": ("a.jsonl", '{"caption": "猫"}\n'.encode("utf-16"), ["猫"], "caption)."),
    "text, a line of megabytes": ("a.txt", "x y " * 500_000, [("x y " * 500_000).strip()], "1 caption of"),
    "text, quotes of a word processor": ("a.txt", "“cat”\n", ["“cat”"], "1 caption of"),
    "text, null as a word": ("a.txt", "null\n", ["null"], "1 caption of"),
    "text, zeros behind": (
        "a.txt",
        b"cat on the mat\ndog in the fog\n" + b"\0" * 5,
        ["cat on the mat", "dog in the fog"],
        "1 empty",
    ),
    "TXT.GZ": ("A.TXT.GZ", gzip.compress(b"cat\ndog"), ["cat", "dog"], "2 captions of"),
}


@pytest.mark.parametrize("kind", READ)
def test_what_is_read(tmp_path: Path, kind: str):
    name, content, texts, said = READ[kind]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    read = read_captions(str(path))
    assert list(read.texts()) == texts
    assert said in str(read)


#: Each kind: name of the file, its content, the column that is asked for, and what the refusal says.
REFUSED: dict[str, tuple[str, str | bytes, str | None, str]] = {
    "csv, apostrophes for quotes": ("a.csv", "caption,n\n'a, b',1\n", None, r"line 2: its quotes are ', as some programs"),
    "csv, a typographic quote that opens": ("a.csv", "caption,n\n“cat,dog”\n", None, r"line 2: its quotes are typographic \(“\)"),
    "csv, Swedish quotes": ("a.csv", "caption,n\n”cat”,1\n", None, "line 2: its quotes are typographic"),
    "csv, full-width quotes": ("a.csv", "n,caption\n1,＂cat＂\n", None, "line 2: its quotes are typographic"),
    "csv, a quote after a space": ("a.csv", 'caption,n\n"a" ,1\n', None, "line 2: a quote that opens here closes within"),
    "csv, a text with a quoted comma": ("a.csv", 'n,caption\n1,say "hi, there"\n', None, "line 2: 3 fields under 2 names"),
    "csv, two empty columns filled": ("a.csv", "caption\na,,b\n", None, "line 2: 3 fields under 1 name"),
    "csv, columns of one name further on": ("a.csv", "a,caption,a\nx,y,z\n", None, "line 1 has two columns of the name 'a'"),
    "csv, names that differ in case": ("a.csv", "caption,Caption\na,b\n", None, r"needs data\.column=.*: caption, Caption"),
    "csv, another case is asked for": ("a.csv", "Caption,n\na,1\n", "caption", "no column 'caption'; it has: Caption, n"),
    "csv, a comment": ("a.csv", "# made by hand\ncaption,n\na,1\n", None, "where the column's name is needed"),
    "csv, captions from the first line on": ("a.csv", "cat on mat,1\ndog,2\n", None, "begins with 'cat on mat'"),
    "csv, tags from the first line on": ("a.csv", "1girl,1\ncat,2\n", None, "begins with '1girl'"),
    "csv, words from the first line on": ("a.csv", "cat\nred cat\ndog\n", None, "begins with 'cat'"),
    "csv, a colon between names": ("a.csv", "caption:n\na:1\n", None, "begins with 'caption:n'"),
    "csv, other separators than the header's": ("a.csv", "caption,n\na;1\nb;2\n", None, "line 2: ';' stands between the fields"),
    "tsv, with commas": ("a.tsv", "caption,n\na,1\n", None, "begins with 'caption,n'"),
    "csv, true and false": ("a.csv", "caption\nTrue\nFalse\n", None, r"line 2: .* holds true and false \(True\)"),
    "csv, dates": ("a.csv", "caption,n\n2020-01-01,1\n", "caption", r"line 2: .* holds dates \(2020-01-01\)"),
    "csv, names of files": ("a.csv", "file,text\n1.jpg,cat\n", "file", r"holds names of files \(1\.jpg\).* Of texts: text"),
    "csv, a tuple": ("a.csv", "caption,n\n\"('a', 'b')\",1\n", None, "line 2: a list or an object is written as a text"),
    "csv, bytes": ("a.csv", "caption,n\nb'cat',1\n", None, "line 2: a list or an object is written as a text"),
    "csv, objects": ("a.csv", 'caption,n\n"{""en"": ""a""}",1\n', None, "line 2: a list or an object is written as a text"),
    "json in a csv": ("a.csv", '{"caption":"a"}\n{"caption":"b"}\n', None, "where the column's name is needed"),
    "json, a list written as a text": ("a.jsonl", lines_of({"caption": "['a', 'b']"}), None, "line 1: a list or an object is"),
    "json, a comma behind a line": ("a.jsonl", '{"caption":"a"},\n{"caption":"b"},\n', None, "line 1 has a comma behind"),
    "json, two values in a line": ("a.jsonl", '{"caption":"a"}{"caption":"b"}\n', None, "line 1 has another value behind"),
    "json, a comma before the end": ("a.json", '[\n{"caption":"a"},\n]', None, r"line 3 is not JSON: a comma with nothing .*\]"),
    "json, a comma in an object": (
        "a.json",
        '[{"caption":"a",}]',
        None,
        "line 1 is not JSON: a comma with nothing|line 1 is not",
    ),
    "json, a broken last line": (
        "a.jsonl",
        '{"caption":"a"}\n{"caption":"b",}\n',
        None,
        "line 2 is not JSON: a comma with nothing",
    ),
    "json, a comment": ("a.json", '// c\n[{"caption":"a"}]', None, "line 1 is not JSON: .*// c"),
    "json, as Python writes it": ("a.jsonl", "{'caption': 'a'}\n", None, "line 1 is not JSON: .*'caption'"),
    "json, one line that is cut off": ("a.jsonl", '{"caption":"a', None, "line 1: the last line is cut off"),
    "json, cut off in a word": ("a.jsonl", '{"caption":"a"}\n{"caption":"b","ok":tr', None, "line 2: the last line is cut off"),
    "json, a list of a line": ("a.jsonl", '[{"caption":"a"},{"caption":"b"}]\n', None, r"line 1 is a list of objects; .*\.json"),
    "json, a list of many lines": (
        "a.jsonl",
        '[{"caption":"a"},\n{"caption":"b"}]\n',
        None,
        r"line 1 is not JSON by itself; .*\.json",
    ),
    "json, pairs": ("a.json", '[["1.jpg","a"],["2.jpg","b"]]', None, "line 1 is a list of a caption and something else"),
    "json, numbers as texts": ("a.json", '["1","2"]', None, r"line 1 holds numbers \(1\)"),
    "json, rows of two kinds": ("a.jsonl", '{"caption":"a"}\n"b"\n', None, "line 2 is a text, where an object"),
    "json, infinity": ("a.jsonl", '{"caption": Infinity}\n', "caption", r"line 1: .* holds a number \(inf\)"),
    "json, an object far down": (
        "a.jsonl",
        lines_of(*[{"caption": "a"}] * 150, {"caption": {"x": 1}}),
        None,
        "line 151: .* an object",
    ),
    "json, half a letter in a name": ("a.json", '[{"\\udc00":"cat"}]', None, "half a letter"),
    "json, half a letter that comes first": (
        "a.json",
        '[\n{"caption":"\\udc00 cat"}]',
        None,
        r"line 2: .*half a letter \(U\+DC00",
    ),
    "json, a split data frame": ("a.json", '{"columns":["caption"],"index":[0],"data":[["a"]]}', None, "several lists"),
    "json, a member twice": ("a.json", '{"caption":["a"],"caption":["b"]}', None, "two members of the name 'caption'"),
    "json, a number": ("a.json", "3", None, "line 1 is a number"),
    "json, nothing but null": ("a.json", "null", None, r"no texts. \(1 is empty.\)"),
    "json in a text file": (
        "a.txt",
        '{"caption":"a"}\n{"caption":"b"}\n',
        None,
        "line 1: a list or an object is written as a text",
    ),
    "a json document in a text file": ("a.txt", '[\n{"caption":"a"}\n]\n', None, r"line 1 is '\[', as in JSON"),
    "a table in a text file": ("a.txt", "caption,n\na,1\n", None, "line 1 is 'caption,n', names of columns"),
    "pictures' names in a text file": ("a.txt", "1000.jpg#0\tA child in pink\n", None, "line 1: a picture's name stands before"),
    "a web page": ("a.csv", "<!DOCTYPE html>\n<html><body>404</body></html>\n", None, "a web page"),
    "a web page of lines": ("a.jsonl", "\n<html></html>\n", None, "a web page"),
    "rich text": ("a.txt", "{\\rtf1\\ansi cat}\n", None, "a word processor"),
    "a PDF": ("a.txt", "%PDF-1.4\n1 0 obj\n", None, "a PDF"),
    "a picture": ("a.txt", b"\x89PNG\r\n\x1a\n" + bytes(range(256)), None, "a picture"),
    "an old spreadsheet": ("a.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 50, None, "an early Office"),
    "a database": ("a.csv", b"SQLite format 3\0" + b"\0" * 50, None, "a database"),
    "an archive": ("a.txt.gz", tar("x.txt"), None, "a tar archive"),
    "parquet in gz": ("a.parquet.gz", gzip.compress(b"PAR1"), None, "parquet is compressed within"),
    "Latin-1, one word": ("a.txt", b"cat\ncaf\xe9\n", None, "line 2 on .*Windows-1252"),
    "Windows-1252 quotes": ("a.csv", "caption,n\n“cat”,1\n".encode("cp1252"), None, "line 2 on .*Windows-1252"),
    "Windows-1251": ("a.txt", "рыжая кошка сидит\n".encode("cp1251"), None, r"line 1 on \(it looks like Windows-1251\)"),
    "KOI8-R": ("a.txt", "рыжая кошка сидит\n".encode("koi8-r"), None, r"line 1 on \(it looks like KOI8-R\)"),
    "UTF-16 of another script": ("a.txt", "猫が座っている\n窓の上に\n".encode("utf-16-be"), None, "looks like UTF-16|not UTF-8"),
    "half letters in bytes": ("a.txt", b"cat \xed\xa0\xbd\xed\xb8\x80\n", None, "not UTF-8, from line 1 on"),
    "nothing but a mark": ("a.txt", b"\xef\xbb\xbf", None, "no texts"),
    "an empty gz": ("a.txt.gz", b"", None, "no texts"),
    "an empty parquet": ("a.parquet", b"", None, "cannot be read as parquet"),
    "a header without an end": ("a.csv", "caption", None, "no texts"),
    "nulls alone": ("a.csv", "caption,n\n,1\nNaN,2\n", None, r"no texts. \(2 are empty.\)"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_refused(tmp_path: Path, kind: str):
    name, content, column, said = REFUSED[kind]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said) as error:
        read_captions(str(tmp_path / name), column)
    assert str(error.value).count("\n") <= 1
    assert len(str(error.value).replace(str(tmp_path), "")) < 300


@pytest.mark.parametrize(
    ("columns", "asked", "found"),
    [
        ({"caption": pyarrow.nulls(2), "alt": ["a", "b"]}, None, ["a", "b"]),
        ({"caption": pyarrow.nulls(2), "alt": ["a", "b"]}, "caption", r"no texts. \(2 are empty"),
        ({"caption": pyarrow.array([float("nan")] * 2)}, "caption", r"no texts. \(2 are empty"),
        ({"caption": ["a", None, "nan", "None"]}, None, ["a"]),
        ({"captions": [["a", None], None, []]}, None, ["a"]),
        ({"caption": pyarrow.array([0, 1], pyarrow.date32())}, "caption", "row 1: .* holds a date"),
        ({"caption": pyarrow.array([1]).cast(pyarrow.decimal128(20))}, "caption", r"row 1: .* holds a number \(1\)"),
        ({"caption": pyarrow.array([[("en", "a")]], pyarrow.map_(pyarrow.string(), pyarrow.string()))}, None, "holds a tuple"),
        ({"caption": pyarrow.array([{"en": "a"}, None, {"en": None}])}, "caption.en", ["a"]),
        ({"caption": pyarrow.array(["a"]).cast(pyarrow.string_view())}, None, ["a"]),
        (
            {"caption": pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xe9"]).buffers())},
            None,
            "cannot be read",
        ),
        ({"path": ["1.png", "2.png"], "sentence": ["a", "b"]}, None, ["a", "b"]),
    ],
)
def test_parquet(tmp_path: Path, columns: dict[str, object], asked: str | None, found: list[str] | str):
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            read_captions(str(tmp_path / "a.parquet"), asked)
    else:
        assert list(read_captions(str(tmp_path / "a.parquet"), asked).texts()) == found


def linked(folder: Path, name: str, target: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).symlink_to(folder / target)


#: Folders and paths: what makes them, what is asked for below the folder, and the texts or the refusal.
FOLDERS: dict[str, tuple[dict[str, str], dict[str, str], str, list[str] | str]] = {
    "ends in capitals": ({"A.PNG": "", "A.TXT": "cat", "B.JPG": "", "B.Txt": "dog"}, {}, "", ["cat", "dog"]),
    "names in other letters than the pictures'": (
        {"A.png": "", "a.txt": "cat", "b.png": "", "B.txt": "dog"},
        {},
        "",
        ["dog", "cat"],
    ),
    "a linked file": ({"x/blob": "cat"}, {"b.txt": "x/blob"}, "b.txt", ["cat"]),
    "a linked folder": ({"o/a.txt": "cat"}, {"l": "o"}, "l", ["cat"]),
    "a linked folder within": ({"o/a.txt": "cat", "d/b.txt": "dog"}, {"d/l": "o"}, "d", ["dog", "cat"]),
    "links in a circle": ({"d/a.txt": "cat", "d/e/b.txt": "dog"}, {"d/l": "d", "d/e/m": "d/e"}, "d", ["cat", "dog"]),
    "a link that leads nowhere": ({}, {"b.txt": "none"}, "b.txt", "a link that leads nowhere"),
    "a link to itself": ({}, {"b.txt": "b.txt"}, "b.txt", "no prompts file at"),
    "a broken link among files": ({"a.txt": "cat"}, {"b.txt": "none"}, "", ["cat"]),
    "a note among tables": ({"a.csv": "caption\ncat", "README.txt": "x"}, {}, "", r"several kinds .*/\*\.csv'"),
    "a pattern of several kinds": ({"a.csv": "caption\ncat", "b.tsv": "caption\ndog"}, {}, "*", r"several kinds .*\*\.[ct]sv'"),
    "a pattern that fits folders": ({"x/a.csv": "caption\ncat"}, {}, "*", "no prompts file fits"),
    "an empty shard": ({"a.csv": "caption,n\ncat,1", "b.csv": ""}, {}, "", ["cat"]),
    "nothing": ({"x/y.md": ""}, {}, "", "holds no captions"),
    "a name that is too long": ({"a.txt": "cat"}, {}, "a" * 300, "too long for a name"),
    "a name with U+0000": ({"a.txt": "cat"}, {}, "a\0.txt", "no prompts file at"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="makes symbolic links")
@pytest.mark.parametrize("kind", FOLDERS)
def test_folders(tmp_path: Path, kind: str):
    files, links, asked, found = FOLDERS[kind]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    for name, target in links.items():
        linked(tmp_path, name, target)
    asked = str(tmp_path / asked) if asked else str(tmp_path)
    if isinstance(found, str):
        with pytest.raises(UserError, match=found):
            read_captions(asked)
    else:
        assert sorted(read_captions(asked).texts()) == sorted(found)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("", "data.prompts is empty"),
        ("  ", "data.prompts is empty"),
        ("https://example.org/a.txt", "not fetched from addresses"),
        ("hub:", "names no data set"),
        ("hub:../captions", "names no data set"),
        ("hub:a/b/c", "names no data set"),
    ],
)
def test_what_is_no_path(asked: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=said):
        read_captions(asked)


@pytest.mark.parametrize(
    "error", [ConnectionError("no route\nto host"), FileNotFoundError("no such data set"), ValueError("config")]
)
def test_a_data_set_that_cannot_be_had(error: Exception, monkeypatch: pytest.MonkeyPatch):
    def load_dataset(name: str, split: str) -> None:
        raise error

    module = types.ModuleType("datasets")
    module.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", module)
    with pytest.raises(UserError, match=f"no data set 'some/captions': {type(error).__name__}"):
        read_captions("hub:some/captions")


def test_no_end_is_left_where_marks_are_taken_out(tmp_path: Path):
    (tmp_path / "a.txt").write_text("cat <|end((of))text|> maid\n", encoding="utf-8")
    (text,) = read_captions(str(tmp_path / "a.txt"), marks="strip").texts()
    assert "<|endoftext|>" not in text


def without_pyarrow(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "pyarrow", None)
    patch.setitem(sys.modules, "pyarrow.parquet", None)


def without_datasets(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "datasets", None)


@pytest.mark.parametrize(
    ("missing", "asked", "said"),
    [
        (without_pyarrow, "a.parquet", r"pip install 'deproj\[data\]'"),
        (without_pyarrow, "a.txt.zst", r"pip install 'deproj\[data\]', or unpack"),
        (without_datasets, "hub:some/captions", r"pip install 'deproj\[data\]'"),
    ],
)
def test_extras_that_are_missing(
    tmp_path: Path, missing: Callable[[pytest.MonkeyPatch], None], asked: str, said: str, monkeypatch: pytest.MonkeyPatch
):
    missing(monkeypatch)
    monkeypatch.chdir(tmp_path)
    for name in ("a.parquet", "a.txt.zst"):
        (tmp_path / name).write_bytes(b"PAR1" if name == "a.parquet" else b"\x28\xb5\x2f\xfd")
    with pytest.raises(UserError, match=said):
        read_captions(asked)


@pytest.mark.parametrize("kind", [kind for kind, (_, _, column, _) in REFUSED.items() if column is None])
def test_prompts_of_files_are_read_by_the_same_rules(tmp_path: Path, kind: str):
    """Those of ``generate --file`` and of ``evaluate --prompts``."""
    name, content, _, said = REFUSED[kind]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=said):
        read_prompts(argparse.Namespace(prompts=[], file=path, between=None))
    with pytest.raises(UserError, match=said):
        prompts_of_file(path, GrammarPrompts())


def test_what_was_left_out_of_a_file_of_prompts_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "a.csv"
    path.write_text('caption,n\n"cat, maid",1\nNA,2\n1girl\n', encoding="utf-8")
    told = f"2 captions of {path} (column caption), 1 empty left out, 1 row shorter than the header.\n"
    drawn = read_prompts(argparse.Namespace(prompts=[], file=path, between=None))
    assert [label for label, _ in drawn] == ["cat, maid", "1girl"]
    assert capsys.readouterr().out == told
    assert prompts_of_file(path, ListedPrompts([["x"] * 20], "others")) == ["cat, maid", "1girl"]
    assert capsys.readouterr().out == told
