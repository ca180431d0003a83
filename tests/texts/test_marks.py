"""The web's marks: found, with how the same is written here, and taken out."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deproj.expression import parse
from deproj.process.errors import UserError
from deproj.texts.marks import found, found_in_prompt, stripped

#: A text, the mark in it, how the same is written here, and the text without it.
MARKS = [
    ("a, (white hair:1.2), b", "(white hair:1.2)", "white hair:1.2", "a, white hair, b"),
    ("((cat))", "((cat))", "cat:1.21", "cat"),
    ("(((cat)))", "(((cat)))", "cat:1.331", "cat"),
    ("((cat, maid))", "((cat, maid))", "(cat, maid):1.21", "cat, maid"),
    ("{{cat}}", "{{cat}}", "cat:1.21", "cat"),
    ("[cat]", "[cat]", "cat:0.9091", "cat"),
    ("[blue|red] eye", "[blue|red]", "(blue | red)", "blue red eye"),
    ("[cat:maid:0.5]", "[cat:maid:0.5]", "(cat | maid @ 0.5)", "cat maid"),
    ("[cat:0.5]", "[cat:0.5]", "cat", "cat"),
    ("cat++, maid", "cat++", "cat:1.21", "cat, maid"),
    ("cat--", "cat--", "cat:0.81", "cat"),
    ("(red hair)++", "(red hair)++", "red hair:1.21", "red hair"),
]


@pytest.mark.parametrize(("text", "mark", "here", "without"), MARKS)
def test_marks(text: str, mark: str, here: str, without: str):
    (hint,) = found(text)
    assert hint.mark == mark
    assert hint.here.endswith(f"write {here}")
    assert parse(here).terms, "what is shown can be typed"
    assert stripped(text) == without
    assert not found(stripped(text))


@pytest.mark.parametrize(
    ("text", "mark", "said", "without"),
    [
        ("cat, <lora:x:0.8>", "<lora:x:0.8>", "load_lora_weights", "cat"),
        ("cat BREAK maid", "BREAK", "a comma", "cat, maid"),
    ],
)
def test_marks_that_nothing_here_is_like(text: str, mark: str, said: str, without: str):
    (hint,) = found(text)
    assert hint.mark == mark
    assert said in hint.here
    assert stripped(text) == without


@pytest.mark.parametrize(
    "text", ["cat, maid", "cat (series)", r"\(\(cat\)\)", "a-b, well--known", "breaking", "1 + 1", "<photo>, cat", "a | b @ 0.3"]
)
def test_what_is_no_mark(text: str):
    assert not found(text)


def test_quotes_of_a_prompt_are_left_alone():
    assert not found_in_prompt(r'"((cat)) \" [x]", maid')
    assert found_in_prompt('"cat", ((maid))')


def test_escaped_brackets_stay():
    assert stripped(r"miku \(vocaloid\), (cat:1.2)") == "miku (vocaloid), cat"


SOUP = st.lists(st.sampled_from([*"()[]{}<>|:+-.,\\ ", "cat", "1.2", "BREAK", "lora:", "、", '"'])).map("".join)


@settings(deadline=None, max_examples=500)
@given(SOUP)
def test_any_text_is_looked_through(text: str):
    for hint in found(text):
        assert str(hint)
        assert hint.mark
    kept = [word for word in re.sub(r"<lora:[^<>]*>", " ", text).split() if word == "cat"]
    assert stripped(text).count("cat") >= len(kept), "words stay"


@settings(deadline=None, max_examples=1000)
@given(SOUP | st.text())
def test_any_prompt_is_read_or_refused_and_what_is_written_is_read_back(text: str):
    try:
        expression = parse(text)
    except UserError:
        return
    if expression.terms:
        assert parse(str(expression)) == expression


@pytest.mark.parametrize(
    "text", ["(" * 20_000, "a" * 20_000 + "++", "[|" * 10_000, "(a:" * 9_000, "+" * 20_000, "<lora:" * 4_000]
)
def test_no_text_takes_long(text: str):
    start = time.process_time()
    found(text)
    stripped(text)
    assert time.process_time() - start < 2


def test_signs_in_full_width_are_told_of_in_prompts_alone():
    assert [str(hint) for hint in found_in_prompt("（cat）：1.2、maid")] == [
        "（）： is a mark of other programs; here, write (): in half width."
    ]
    assert found_in_prompt('"（cat）"、maid，1girl') == []
    assert found("（cat）：1.2") == [], "captions hold them as letters"
