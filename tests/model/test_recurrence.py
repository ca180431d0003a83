"""The recurrence by hand against the plain loop under autograd, in float64: a law over sizes and variants."""

import copy
from types import ModuleType

import pytest
import torch
from torch import Tensor

from deproj.model.lstm import H0_ADDED, LSTMConfig, LSTMDeprojector
from deproj.model.recurrence import Buffers, Variant, Weights, fused, plain, unroll
from deproj.speed.peers import PlainLoop

VARIANTS = [Variant(carried, put_out, 1e-5) for carried in (True, False) for put_out in (True, False)]


def case(b: int, d: int, h: int, places: int, fed: bool, seed: int) -> tuple[Weights, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, scale: float = 0.5) -> Tensor:
        return (scale * torch.randn(*shape, generator=generator, dtype=torch.float64)).requires_grad_()

    shapes = [(4 * h, d), (4 * h, h), (4 * h,), (d,), (d,), (h,), (h,), (h,), (h,), (d, h), (d, d)]
    final = [random(d).detach(), random(d).detach()]
    weights = Weights(*[random(*shape) for shape in shapes], *final)
    return weights, random(b, h), random(b, d), random(b, places, d) if fed else None


@pytest.mark.parametrize("h0_added", H0_ADDED)
@pytest.mark.parametrize("fed", [True, False])
@pytest.mark.parametrize(("b", "d", "h", "places"), [(1, 3, 5, 1), (3, 8, 6, 4), (5, 16, 24, 30), (2, 7, 7, 76)])
def test_equals_the_plain_loop(h0_added: str, fed: bool, b: int, d: int, h: int, places: int):
    torch.manual_seed(b + d)
    config = LSTMConfig(d, h, h0_added)
    models = [LSTMDeprojector(config).double(), PlainLoop(config).double()]
    for parameter in models[0].parameters():  # norms start as the identity
        parameter.data += 0.3 * torch.randn_like(parameter)
    models[1].load_state_dict(models[0].state_dict())
    embedding = torch.randn(b, d, dtype=torch.float64, requires_grad=True)
    states = torch.randn(b, places, d, dtype=torch.float64, requires_grad=True) if fed else None
    target = torch.randn(b, places, d, dtype=torch.float64)
    results = []
    for model in models:
        y = model.unroll(embedding, places, states)
        wanted = [t for t in (*model.parameters(), embedding, states) if t is not None and t.requires_grad]
        results.append((y, torch.autograd.grad((y - target).square().sum(), wanted, materialize_grads=True)))
    (ours, our_grads), (theirs, their_grads) = results
    assert (ours - theirs).abs().max() < 1e-10
    for mine, other in zip(our_grads, their_grads, strict=True):
        assert (mine - other).norm() <= 1e-8 * other.norm() + 1e-12


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("fed", [True, False])
def test_gradcheck(variant: Variant, fed: bool):
    weights, h0, skip, states = case(2, 3, 4, 3, fed, seed=1)

    def function(*tensors: Tensor) -> Tensor:
        return unroll(Weights(*tensors[:-2], *weights[-2:]), variant, *tensors[-2:], 3, states, Buffers())

    assert torch.autograd.gradcheck(function, (*weights[:-2], h0, skip))


def test_a_shorter_unroll_is_the_beginning_of_a_longer():
    torch.manual_seed(0)
    model = LSTMDeprojector(LSTMConfig(6, 9)).double()
    embedding = torch.randn(3, 6, dtype=torch.float64)
    assert torch.allclose(model.unroll(embedding, 9), model.unroll(embedding, 30)[:, :9], atol=1e-12)


@pytest.mark.parametrize("passes", [plain, fused], ids=["plain", "fused"])
@pytest.mark.parametrize("fed", [True, False])
@pytest.mark.parametrize("variant", VARIANTS)
def test_float32_and_bfloat16_stay_near_float64(variant: Variant, fed: bool, passes: ModuleType):
    """The packed products of the CPU, and the compiled kernels, which float64 doesn't take."""
    weights, h0, skip, states = case(64, 64, 96, 12, fed, seed=3)
    weights = Weights(*[(w / 4).detach() for w in weights])
    exact = unroll(weights, variant, h0, skip, 12, states, Buffers())

    def relative(bfloat16: bool) -> list[float]:
        leaves = [t.detach().float().requires_grad_() for t in (*weights[:-2], h0, skip)]
        given = Weights(*leaves[:-2], *(w.float() for w in weights[-2:]))
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = unroll(given, variant, *leaves[-2:], 12, None if states is None else states.float(), Buffers(), passes)
        assert y.dtype == torch.float32
        grads = torch.autograd.grad(y.square().sum(), leaves)
        doubles = [t.detach().double().requires_grad_() for t in leaves]
        z = unroll(Weights(*doubles[:-2], *weights[-2:]), variant, *doubles[-2:], 12, states, Buffers())
        exact_grads = torch.autograd.grad(z.square().sum(), doubles)
        far = [((y - exact).norm() / exact.norm()).item()]
        return far + [((a - b).norm() / b.norm()).item() for a, b in zip(grads, exact_grads, strict=True)]

    assert max(relative(False)) < 1e-4
    half = relative(True)
    assert 1e-4 < half[0] < 0.03  # above: the products are in bfloat16 indeed
    assert max(half) < 0.15


def test_without_a_gradient_the_same_comes_out():
    weights, h0, skip, _ = case(3, 8, 12, 20, False, seed=4)
    kept = unroll(weights, VARIANTS[0], h0, skip, 20, None, Buffers())
    with torch.no_grad():
        assert torch.equal(unroll(weights, VARIANTS[0], h0, skip, 20, None, Buffers()), kept)


def test_buffers_are_shared_by_steps_but_not_by_living_graphs():
    weights, h0, skip, _ = case(3, 8, 12, 5, False, seed=5)
    buffers = Buffers()

    def step(scale: float) -> Tensor:
        return unroll(weights, VARIANTS[0], h0 * scale, skip, 5, None, buffers).square().sum()

    alone = [torch.autograd.grad(step(scale), weights.w_hh)[0] for scale in (1.0, 2.0)]
    first, second = step(1.0), step(2.0)
    together = [torch.autograd.grad(loss, weights.w_hh, retain_graph=True)[0] for loss in (first, second)]
    again = torch.autograd.grad(first, weights.w_hh)[0]
    assert all(torch.equal(a, b) for a, b in zip([*alone, alone[0]], [*together, again], strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(first, weights.w_hh)
    del second
    blocks = len(buffers.free)
    for _ in range(3):
        loss = step(1.0)  # still referred to when the next one begins
        torch.autograd.grad(loss, weights.w_hh)
    assert len(buffers.free) == blocks


def test_a_copy_of_a_model_has_buffers_of_its_own():
    model = LSTMDeprojector(LSTMConfig(6, 9))
    model.unroll(torch.randn(2, 6), 3).sum().backward()
    assert model.step_buffers.free
    assert not copy.deepcopy(model).step_buffers.free
