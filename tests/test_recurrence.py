"""The recurrence by hand against the plain loop under autograd, in float64: a law over sizes and variants."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deproj.model import LSTMConfig, LSTMDeprojector
from deproj.recurrence import Variant, Weights, unroll


def plain(w: Weights, v: Variant, h0: Tensor, skip: Tensor, places: int, fed: Tensor | None) -> Tensor:
    """The equations as a loop of cells."""
    h, c, x = h0, torch.zeros_like(h0), torch.zeros_like(skip)
    out = []
    for p in range(places):
        x = x if fed is None else fed[:, p]
        gates = F.layer_norm(x, x.shape[1:], w.x_weight, w.x_bias, v.eps) @ w.w_ih.T + h @ w.w_hh.T + w.b_gates
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        raw = o.sigmoid() * c.tanh()
        c = F.layer_norm(c, c.shape[1:], w.c_weight, w.c_bias, v.eps)
        normed = F.layer_norm(raw, raw.shape[1:], w.h_weight, w.h_bias, v.eps)
        h = normed + h0 if v.carried else normed
        y = (normed + h0 if v.put_out else normed) @ w.w_h.T + x @ w.w_x.T + skip
        x = F.layer_norm(y, y.shape[1:], w.y_weight, w.y_bias, v.eps)
        out.append(x)
    return torch.stack(out, 1)


VARIANTS = [Variant(carried, put_out, 1e-5) for carried in (True, False) for put_out in (True, False)]


def case(b: int, d: int, h: int, places: int, fed: bool, seed: int) -> tuple[Weights, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 0.5) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

    shapes = [(4 * h, d), (4 * h, h), (4 * h,), (d,), (d,), (h,), (h,), (h,), (h,), (d, h), (d, d)]
    final = [random(d).detach(), random(d).detach()]
    weights = Weights(*[random(*shape) for shape in shapes], *final)
    return weights, random(b, h), random(b, d), random(b, places, d) if fed else None


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fed", [True, False])
@pytest.mark.parametrize(("b", "d", "h", "places"), [(1, 3, 5, 1), (3, 8, 6, 4), (5, 16, 24, 30), (2, 7, 7, 76)])
def test_equals_the_plain_loop(variant: Variant, fed: bool, b: int, d: int, h: int, places: int):
    weights, h0, skip, states = case(b, d, h, places, fed, seed=b + d)
    trained = [t for t in (*weights, h0, skip, states) if t is not None and t.requires_grad]
    target = torch.randn(b, places, d, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    results = []
    for function in (unroll, plain):
        y = function(weights, variant, h0, skip, places, states)
        loss = (y - target).square().sum()
        results.append((y, torch.autograd.grad(loss, trained, materialize_grads=True)))
    (ours, our_grads), (theirs, their_grads) = results
    assert (ours - theirs).abs().max() < 1e-10
    for mine, other in zip(our_grads, their_grads, strict=True):
        assert (mine - other).norm() <= 1e-8 * other.norm() + 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fed", [True, False])
def test_gradcheck(variant: Variant, fed: bool):
    weights, h0, skip, states = case(2, 3, 4, 3, fed, seed=1)

    def function(*tensors: Tensor) -> Tensor:
        return unroll(Weights(*tensors[:-2], *weights[-2:]), variant, *tensors[-2:], 3, states)

    assert torch.autograd.gradcheck(function, (*weights[:-2], h0, skip))


def test_a_shorter_unroll_is_the_beginning_of_a_longer():
    torch.manual_seed(0)
    model = LSTMDeprojector(LSTMConfig(6, 9)).double()
    embedding = torch.randn(3, 6, dtype=torch.float64)
    assert torch.allclose(model.unroll(embedding, 9), model.unroll(embedding, 30)[:, :9], atol=1e-12)
