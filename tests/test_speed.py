"""What is timed is what it says: peers have our products, and the fastest of a group is marked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from deproj.bench import bench, chosen, options
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.errors import UserError
from deproj.process.progress import SILENT
from deproj.speed import growth
from deproj.speed.cases import Case, measure
from deproj.speed.peers import PEERS, PlainLoop, TorchLSTM, like
from deproj.speed.table import as_text, rows_of


def cases() -> list[Case]:
    seconds = {"product 2048³ | 32": 0.1, "any | plain loop": 0.4, "any | other": 0.3, "all | ours": 0.2, "words | ours": 0.1}
    found = [Case(name, lambda: None, 1.0) for name in seconds]
    for case in found:
        case.seconds = [seconds[case.name]] * 3
        if case.name[:3] in ("any", "all"):
            case.group = "size"
        if case.name.endswith(("other", "ours")):
            case.against = "any | plain loop"
    return found


@pytest.mark.parametrize("fed", [True, False])
def test_a_loop_of_cells_computes_what_ours_does(fed: bool):
    ours = LSTMDeprojector(LSTMConfig(8, 12))
    embedding, states = torch.randn(3, 8), torch.randn(3, 5, 8) if fed else None
    theirs = like(PlainLoop, ours).unroll(embedding, 5, states)
    assert torch.allclose(theirs, ours.unroll(embedding, 5, states), atol=1e-5)


def test_the_lstm_of_torch_computes_a_place_at_a_time_what_it_does_at_once():
    peer = like(TorchLSTM, LSTMDeprojector(LSTMConfig(8, 12)))
    embedding = torch.randn(3, 8)
    free = peer.unroll(embedding, 5)
    fed = torch.cat([torch.zeros(3, 1, 8), free[:, :-1]], 1)
    assert torch.allclose(peer.unroll(embedding, 5, fed), free, atol=1e-5)
    assert set(PEERS) == {"plain loop", "torch.compile", "nn.LSTM, no norms"}


def test_the_fastest_of_a_group_is_marked_and_ratios_are_to_the_loop():
    rows = {row.name: row for row in rows_of(cases())}
    assert [name for name, row in rows.items() if row.fastest] == ["all | ours"]
    assert rows["any | other"].ratio == pytest.approx(4 / 3)
    assert as_text(list(rows.values())).count("fastest") == 1


def test_what_may_fail_is_left_out_and_what_may_not_ends_it(capsys: pytest.CaptureFixture[str]):
    def fails() -> None:
        raise RuntimeError("no Python.h")

    found = [Case("runs", lambda: None, 1.0), Case("compiled", fails, 1.0, optional=True)]
    measure(found, 2, SILENT)
    assert [(case.name, len(case.seconds)) for case in found] == [("runs", 2)]
    assert "compiled is left out: RuntimeError: no Python.h" in capsys.readouterr().out
    with pytest.raises(RuntimeError):
        measure([Case("ours", fails, 1.0)], 2, SILENT)


def test_some_cases_alone_are_timed_with_what_they_are_held_against():
    assert [case.name for case in chosen(cases(), "words")] == ["product 2048³ | 32", "any | plain loop", "words | ours"]
    with pytest.raises(UserError, match="is in no name"):
        chosen(cases(), "nothing")


@pytest.mark.parametrize("number", range(len(growth.CURVES)), ids=[curve.of for curve in growth.CURVES])
def test_every_curve_has_points_of_its_size(number: int):
    at = growth.point(number, 2)
    assert (at.size, at.seconds > 0) == (2, True)


@pytest.mark.parametrize("more", [["--quick"], ["--only", "x"], ["--rounds", "2"], ["--device", "cpu"], ["--out", "a.svg"]])
def test_growth_takes_nothing_beside(more: list[str]):
    with pytest.raises(UserError, match="--out"):
        bench(options().parse_args(["--growth", *more]), SILENT)


def test_growth_that_is_faster_than_the_work_is_told(tmp_path: Path):
    def curve(seconds: float) -> growth.Curve:
        points = (growth.Point(10, 1.0, 100.0), growth.Point(100, seconds, None))
        return growth.Curve("sorting", "numbers", (10, 100), growth.of_batch, points=points)

    told = growth.text([curve(10.0), curve(30.0)])
    assert told.count("FASTER") == 1
    assert curve(10.0).exponent == pytest.approx(1)
    growth.figure([curve(10.0), curve(30.0)], tmp_path / "growth.svg")
    assert "the work" in (tmp_path / "growth.svg").read_text(encoding="utf-8")
