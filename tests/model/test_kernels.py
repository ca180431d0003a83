"""The compiled kernels: their functions against numpy, their passes against torch's own operations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.model.recurrence import fused, kernels, plain, unrolling

EVERYWHERE = np.concatenate([np.linspace(-100, 100, 4001), np.linspace(-1, 1, 4001), [1e-8, -1e-8, 0.25, -0.25]]).astype(
    np.float32
)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("function", "true"),
    [
        (kernels.exp, np.exp),
        (kernels.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
        (kernels.tanh, np.tanh),
    ],
    ids=["exp", "sigmoid", "tanh"],
)
def test_functions_are_as_near_as_float32_is(function: object, true: object):
    inside = EVERYWHERE[np.abs(EVERYWHERE) < 86]
    found = np.array([function(x) for x in inside])
    exact = true(inside.astype(float))
    assert np.all(np.abs(found - exact) <= 8e-7 * np.abs(exact))


@pytest.mark.parametrize(("function", "low", "high"), [(kernels.sigmoid, 0, 1), (kernels.tanh, -1, 1)])
def test_far_out_they_saturate_and_nan_stays_nan(function: object, low: float, high: float):
    assert abs(function(np.float32(-np.inf)) - low) < 1e-30
    assert function(np.float32(np.inf)) == high
    assert np.isnan(function(np.float32(np.nan)))


@pytest.mark.parametrize("width", [8, 128])
@pytest.mark.parametrize("rows", [1, 7, 64])
@pytest.mark.parametrize("fed", [False, True])
def test_passes_equal_the_plain_ones(fed: bool, rows: int, width: int, threads: int):
    torch.manual_seed(rows)
    model = LSTMDeprojector(LSTMConfig(width, width * 3 // 2))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    embedding, states = torch.randn(rows, width), torch.randn(rows, 20, width) if fed else None
    target = torch.randn(rows, 20, width)

    def results(passes: object) -> list[Tensor]:
        before, unrolling.passes_for = unrolling.passes_for, lambda *_: passes
        try:
            y = model.unroll(embedding, 20, states)
            wanted = [p for p in model.parameters() if p.requires_grad]
            grads = torch.autograd.grad((y - target).square().sum(), wanted, materialize_grads=True)
        finally:
            unrolling.passes_for = before
        return [y, *grads]

    for ours, theirs in zip(results(fused), results(plain), strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm() + 1e-6


def test_the_same_bits_every_time(threads: int):
    model, embedding = LSTMDeprojector(LSTMConfig(64, 96)), torch.randn(64, 64)

    def step() -> list[Tensor]:
        y = model.unroll(embedding, 76)
        return [y, *torch.autograd.grad(y.square().sum(), [p for p in model.parameters() if p.requires_grad])]

    first = step()
    for _ in range(3):
        assert all(torch.equal(one, other) for one, other in zip(first, step(), strict=True))


def test_a_process_that_forks_has_a_thread_of_its_own():
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert fused.in_parts(lambda part: part.start, 64, True) == [0, 32]
        fused.other_thread.cache_clear()  # what a fork does
        assert fused.in_parts(lambda part: part.start, 64, True) == [0, 32]
        with pytest.raises(ValueError, match="second"):
            fused.in_parts(lambda part: (_ for _ in ()).throw(ValueError("second")) if part.start else 0, 64, True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_where_numba_is_missing_the_plain_passes_are_taken(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(unrolling, "fused", lambda: None)
    model = LSTMDeprojector(LSTMConfig(8, 12))
    weights = model.unroll(torch.randn(3, 8), 5)
    assert torch.isfinite(weights).all()


def test_not_a_number_isnt_hidden():
    model, embedding = LSTMDeprojector(LSTMConfig(8, 12)), torch.randn(3, 8)
    embedding[1, 2] = float("nan")
    y = model.unroll(embedding, 5)
    assert y[1].isnan().all()
    assert torch.isfinite(y[[0, 2]]).all()
