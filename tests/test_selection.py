"""Selections: their laws, and the table of the design as a slow oracle."""

import pytest
import torch

from deproj.selection import PLACES, AllTokens, EosOnward, Plan, TokenSelection, WordsEos, WordsEosReversed

SELECTIONS = [AllTokens(), WordsEos(), WordsEosReversed(), EosOnward()]
LENGTHS = torch.arange(2, PLACES + 1)


def table(name: str, length: int) -> tuple[list[int], list[float]]:
    """Order and weight of one prompt, written out from the design's table."""
    inside, outside = list(range(1, length)), list(range(length, PLACES))
    if name == "AllTokens":
        weights = [0.0] + [5.0] * (length - 1) + [1.0] * (PLACES - length)
        mean = sum(weights) / PLACES
        return [0, *inside, *outside], [weight / mean for weight in weights]
    if name == "WordsEos":
        return [0, *inside, *outside], [0.0] + [1.0] * len(inside) + [0.0] * len(outside)
    if name == "WordsEosReversed":
        return [0, *inside[::-1], *outside], [0.0] + [1.0] * len(inside) + [0.0] * len(outside)
    order = [0, *range(length - 1, PLACES), *range(1, length - 1)]
    count = 78 - length
    return order, [0.0] + [1.0] * count + [0.0] * (PLACES - 1 - count)


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: type(s).__name__)
def test_is_the_table(selection: TokenSelection):
    plan = selection(LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        order, weight = table(type(selection).__name__, length)
        assert plan.order[row].tolist() == order
        assert torch.allclose(plan.weight[row], torch.tensor(weight), atol=1e-6)


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: type(s).__name__)
def test_laws(selection: TokenSelection):
    plan = selection(LENGTHS)
    assert plan.order.shape == plan.weight.shape == (len(LENGTHS), PLACES)
    assert plan.order.dtype == torch.int64
    assert plan.weight.dtype == torch.float32
    assert (plan.order.sort(1).values == torch.arange(PLACES)).all(), "a permutation"
    assert (plan.order[:, 0] == 0).all(), "SOS stands first"
    assert (plan.weight[:, 0] == 0).all(), "SOS has no weight"
    assert (plan.weight >= 0).all()
    assert (plan.weight.sum(1) > 0).all()
    assert torch.equal(selection(LENGTHS[3:5]).order, plan.order[3:5]), "a row depends on its own length alone"


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: type(s).__name__)
def test_restore_undoes_arrange(selection: TokenSelection):
    states = torch.randn(len(LENGTHS), PLACES, 3)
    plan = selection(LENGTHS)
    assert torch.equal(plan.restore(plan.arrange(states)), states)


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("length", [2, 9, 77])
def test_no_weight_behind_places(selection: TokenSelection, length: int):
    plan = selection(torch.tensor([length, 5]))
    assert (plan.weight[:, plan.places :] == 0).all()
    assert (plan.weight[:, plan.places - 1] > 0).any()


def test_all_has_mean_weight_one():
    assert torch.allclose(AllTokens()(LENGTHS).weight.mean(1), torch.ones(len(LENGTHS)))


@pytest.mark.parametrize("lengths", [torch.tensor([1, 5]), torch.tensor([78]), torch.tensor([3.0]), torch.tensor([[3]])])
def test_refuses_what_is_no_length(lengths: torch.Tensor):
    with pytest.raises(ValueError, match="lengths"):
        EosOnward()(lengths)


def test_refuses_weights_that_are_none():
    with pytest.raises(ValueError, match="weights"):
        AllTokens(words=0, padding=0)


def test_plan_without_weights_needs_only_sos():
    order = torch.arange(PLACES)[None]
    assert Plan(order, torch.zeros(1, PLACES)).places == 1
