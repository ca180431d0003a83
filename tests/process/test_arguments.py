"""Mistakes in options: a line each, with what was likely meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from deproj.generate.__main__ import main as generate
from deproj.process.arguments import ELSEWHERE, Parser


@pytest.fixture
def parser() -> Parser:
    parser = Parser("python -m deproj.generate", "Draws.")
    parser.add_argument("model")
    parser.add_argument("prompts", nargs="*")
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--count", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--baseline", choices=["mean", "ridge"])
    parser.add_argument("--between", nargs=2)
    return parser


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["best", "--cfg", "7"], "there is no option --cfg. Did you mean --guidance?"),
        (["best", "--CFG_scale=7"], "there is no option --CFG_scale. Did you mean --guidance?"),
        (["best", "--guidence", "7"], "there is no option --guidence. Did you mean --guidance?"),
        (["best", "--sampling-steps", "7"], "there is no option --sampling-steps."),
        (["best", "cat", "-red"], "there is no option -red. A prompt that begins with - stands after --: -- -red."),
        (["best", "--coun", "7"], "there is no option --coun. Did you mean --count?"),
        (["best", "--guidance", "x"], "--guidance is a number; got 'x'."),
        (["best", "--count", "1.5"], "--count is a whole number; got '1.5'."),
        (["best", "--baseline", "rigde"], "--baseline is one of mean, ridge; got 'rigde'. Did you mean ridge?"),
        (["best", "--between", "cat"], "--between: expected 2 arguments."),
        ([], "the following arguments are required: model, prompts."),
    ],
)
def test_a_mistake_is_a_line(arguments: list[str], said: str, parser: Parser, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(arguments)
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {said} python -m deproj.generate --help explains the options.\n"


@pytest.mark.parametrize("arguments", [[""], ["b", "c d"]])
def test_an_argument_too_many_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    parser = Parser("python -m deproj.runs", "Lists.")
    with pytest.raises(SystemExit):
        parser.parse_args(arguments)
    said = "'' is one argument" if len(arguments) == 1 else "b 'c d' are 2 arguments"
    assert capsys.readouterr().err.startswith(f"error: {said} too many. ")
    with pytest.raises(SystemExit):
        parser.parse_args(["-x"])
    assert capsys.readouterr().err.startswith("error: there is no option -x. python -m deproj.runs --help")


@pytest.mark.parametrize("flag", ["--n", "--neg", "--cfg", "--ckpt", "--outdir"])
def test_what_other_programs_say_is_no_option_here(
    flag: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Nor the beginning of one, which argparse would take for it."""
    monkeypatch.setattr("sys.argv", ["generate", "best", "cat", flag, "4"])
    with pytest.raises(SystemExit) as stopped:
        generate()
    assert stopped.value.code == 2
    assert f"there is no option {flag}. Did you mean {ELSEWHERE[flag]}?" in capsys.readouterr().err
