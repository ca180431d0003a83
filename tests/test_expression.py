"""Arithmetic on embeddings: the laws of a vector space with the empty prompt as its zero, and the text syntax."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from deproj.clip.encoder import TextEncoder
from deproj.expression import (
    Expression,
    Named,
    Text,
    between,
    embed,
    expression_of,
    mean,
    parse,
    picture,
    text,
    vector,
)
from deproj.process.errors import UserError
from deproj.texts.benchmark import COMPOSED, SINGLE

ATOMS = (
    *("cat", "1girl", "red hair", "a:b", "-x", "", " padded ", 'quo"te', "back\\slash", "café (noir)", "日本", "<y>", "a@b|c"),
    *("a、b", "a，b"),
)


def drawn(rng: random.Random) -> Expression:
    terms = tuple(
        (rng.choice((1.0, -1.0, 1.2, -0.3, 0.1 + 0.2, 1e-7, 3e20)), rng.choice([Text(rng.choice(ATOMS)), Named("my photo")]))
        for _ in range(rng.randint(1, 4))
    )
    return Expression(terms)


@pytest.mark.parametrize("seed", range(200))
def test_what_is_written_is_read_back(seed: int):
    expression = drawn(random.Random(seed))
    assert parse(str(expression)) == expression, str(expression)


def test_commas_are_the_composition_that_models_are_measured_with(encoder: TextEncoder):
    prompts = [*SINGLE, *COMPOSED, "cat,, maid,", " , ", "", "cat、maid，1boy"]
    ours = embed([parse(prompt) for prompt in prompts], encoder)
    assert torch.allclose(ours, encoder.compose(prompts), atol=1e-5)
    assert torch.allclose(embed([mean("cat", "maid")], encoder), encoder.compose(["cat, maid"], mean=True), atol=1e-5)


def test_the_empty_prompt_is_zero(encoder: TextEncoder):
    empty = encoder.empty.embedding
    for nothing in (Expression(), parse(""), parse('""'), text("cat") - "cat", 0 * text("cat"), 5 * text("")):
        assert torch.allclose(embed([nothing], encoder), empty, atol=1e-5)
    cat = embed([text("cat")], encoder)
    assert torch.equal(embed([text("cat")], encoder), cat)
    assert torch.allclose(embed([2 * text("cat")], encoder), empty + 2 * (cat - empty), atol=1e-5)
    assert torch.allclose(embed([vector(cat[0]) / 2], encoder), (empty + cat) / 2, atol=1e-5)


def test_syntax_and_objects_say_the_same():
    cat, maid, boy = text("cat"), text("maid"), text("1boy")
    for syntax, objects in (
        ("1girl, red hair:1.2, -black skirt", text("1girl") + 1.2 * text("red hair") - "black skirt"),
        ("cat|maid", mean(cat, maid)),
        ("cat | maid | 1boy", mean(cat, maid, boy)),
        ("cat, maid | 1boy @ 0.3", between(cat + maid, boy, 0.3)),
        ("(cat | maid @ .25):2, -(1boy)", 2 * between(cat, maid, 0.25) - boy),
        ("-(cat, maid:0.5):2", -2 * (cat + 0.5 * maid)),
        ("- cat :-1e0", cat),
        ('"cat, maid"', text("cat, maid")),
        (r"cat\, maid\:3, c\ ", text("cat, maid:3") + text("c ")),
        ("well-being, x-1", text("well-being") + text("x-1")),
        ("<photo>:0.5, red hair", 0.5 * Expression(((1.0, Named("photo")),)) + "red hair"),
        ("(((cat)))", cat),
        (",cat,", cat),
        ("cat、maid， 1boy:2、", cat + maid + 2 * boy),
        ('"cat、maid"', text("cat、maid")),
        (r"cat\、maid", text("cat、maid")),
    ):
        assert parse(syntax) == objects, syntax
    assert "red hair" + maid == text("red hair") + maid
    assert "red hair" - maid == text("red hair") - maid


def test_interpolation_runs_from_side_to_side(encoder: TextEncoder):
    ends = embed([text("cat"), text("1boy")], encoder)
    for t in (0.0, 0.3, 1.0):
        straight = torch.lerp(ends[0], ends[1], t)
        assert torch.allclose(embed([parse(f"cat | 1boy @ {t}")], encoder)[0], straight, atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "at", "said"),
    [
        ("1girl, (red hair", 7, "not closed"),
        ("1girl, red hair)", 15, "closes nothing"),
        ("(cat]", 0, "not closed"),
        ('cat, "red hair', 5, "quote is not closed"),
        ("cat, <photo", 5, "not closed"),
        ("cat, photo>", 10, "closes nothing"),
        ("<>, cat", 0, "by a name"),
        ("re:zero", 3, "a weight must be a number"),
        ("cat:", 4, "a weight must be a number"),
        ("cat:1.2 maid", 8, "then comes a comma"),
        ("cat:1:2", 5, "then comes a comma"),
        ("cat:1e999", 4, "too large"),
        ("cat:nan", 4, "must be a number"),
        ("cat, -", 5, "nothing to subtract"),
        ("cat, -, maid", 5, "nothing to subtract"),
        ("cat, :2", 5, "nothing to weigh"),
        ("cat | ", 4, "nothing to the right"),
        ("| cat", 0, "nothing to the left"),
        ("cat @ 0.5", 4, "two sides"),
        ("a | b | c @ 0.5", 10, "two sides"),
        ("a | b @ 30", 7, "0 to 1"),
        ("a | b @ 0.3 @ 0.4", 12, "cannot stand here"),
        ("fate (series)", 5, "a comma is missing"),
        ("(cat) maid", 6, "a comma is missing"),
        ("()", 0, "nothing in these brackets"),
        ("cat \\", 4, "nothing follows"),
        ("(" * 60 + "cat" + ")" * 60, 50, "deep at most"),
        ("日本, (x", 4, "not closed"),
    ],
)
def test_errors_point_at_the_character(prompt: str, at: int, said: str):
    with pytest.raises(UserError) as error:
        parse(prompt)
    first, shown, mark = str(error.value).split("\n")
    assert said in first
    assert first.endswith(f"character {at + 1} of the prompt:")
    wide = sum(c in "日本" for c in prompt[:at])
    pointed = len(mark) - 1 - wide
    if at < len(prompt):
        assert shown[pointed] == prompt[at], str(error.value)
    else:
        assert pointed == len(shown.rstrip())


def test_any_text_is_read_or_refused_in_one_way():
    """Random signs: nothing but a UserError, and what is read is written and read back."""
    rng = random.Random(0)
    read, refused = 0, list[str]()
    for _ in range(5000):
        prompt = "".join(rng.choice('ab ,:|@()<>"\\-0.5') for _ in range(rng.randint(0, 9)))
        try:
            expression = parse(prompt)
        except UserError as error:
            refused.append(str(error))
            continue
        read += 1
        if expression.terms:
            assert parse(str(expression)) == expression, prompt
    assert read > 500
    assert all(re.search(r"character \d+ of the prompt", error) for error in refused)


def test_plain_text_exists_for_sums_of_texts_alone():
    assert parse("cat, maid").plain == "cat maid"
    assert parse("").plain == ""
    for prompt in ("cat:1.2, maid", "-cat", "cat | maid", "<photo>, maid"):
        assert parse(prompt).plain is None


def test_pictures_come_by_name(encoder: TextEncoder):
    photo = Image.new("RGB", (32, 32))
    expression = parse("<photo>, red hair:2")
    given = expression.with_pictures({"photo": photo})
    embedded = embed([given, picture(photo)], encoder, lambda images: torch.ones(len(images), encoder.width))
    empty = encoder.empty.embedding[0]
    assert torch.equal(embedded[1], torch.ones(encoder.width))
    expected = torch.ones(encoder.width) + 2 * (encoder.embed(["red hair"])[0] - empty)
    assert torch.allclose(embedded[0], expected, atol=1e-5)
    assert parse("<photo>, <new>").with_pictures({"new": photo}, ["<photo>", "<new>"]).terms[0] == (1.0, Text("<photo>"))
    with pytest.raises(UserError, match="no picture is named <photo>; there are: <other>"):
        expression.with_pictures({"other": photo})
    with pytest.raises(UserError, match="no picture is named <photo>"):
        embed([expression], encoder)
    with pytest.raises(UserError, match="name the CLIP"):
        embed([given], encoder)


def test_refuses_what_is_no_expression(encoder: TextEncoder):
    with pytest.raises(UserError, match="got int"):
        expression_of(3)
    with pytest.raises(UserError, match=re.escape("(D,)")):
        vector(torch.zeros(1, 128))
    with pytest.raises(UserError, match=re.escape("(128,) here; got (64,)")):
        embed([vector(torch.zeros(64))], encoder)
    with pytest.raises(UserError, match="finite"):
        text("cat") * float("nan")
    with pytest.raises(UserError, match="divided by a number other than 0; got 0"):
        text("cat") / 0
    with pytest.raises(UserError, match="got none"):
        mean()


@pytest.mark.parametrize("prompt", ["cat \udcff", "\ud83d, maid", "cat:1.2 | \udfff", "<\udc80>", '"\udcff"'])
def test_half_a_letter_is_refused_where_it_is_read(prompt: str, encoder: TextEncoder):
    with pytest.raises(UserError, match=r"half a letter \(U\+D"):
        parse(prompt)
    with pytest.raises(UserError, match=r"half a letter \(U\+D"):
        encoder([prompt])
    if "\udcff" in prompt:
        with pytest.raises(UserError, match="the byte 0xff, which is no UTF-8"):
            parse(prompt)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: text(3), "a prompt is a text here; got int"),
        (lambda: parse(None), "a prompt is a text here; got NoneType"),
        (lambda: vector([1.0, 2.0]), r"a vector is one embedding, a tensor \(D,\); got list"),
        (lambda: vector(np.zeros(3)), r"a vector is one embedding, a tensor \(D,\); got ndarray \(3,\)"),
        (lambda: between("cat", 0.3, "dog"), "between takes two prompts and then the share of the second, a number; got 'dog'"),
        (lambda: text("a") * "b", "a weight is a finite number; got 'b'"),
        (lambda: text("a") / "b", "divided by a number other than 0; got 'b'"),
    ],
)
def test_values_of_another_kind_are_told(made: Callable[[], object], said: str):
    with pytest.raises(UserError, match=said):
        made()
