"""The loss: against a slow sum, and that what isn't computed doesn't count."""

import pytest
import torch

from deproj.data.cache import Rows
from deproj.feed import Batch, FeedMode, Recursive
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.errors import UserError
from deproj.selection import AllTokens, EosOnward, TokenSelection, WordsEos, WordsEosReversed
from deproj.training.module import DeprojectorModule, cosine
from deproj.training.objective.base import Learner, States, weighted_loss

SELECTIONS = [AllTokens(), WordsEos(), WordsEosReversed(), EosOnward()]


def rows(count: int = 4, width: int = 6) -> Rows:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(count, 77, width, generator=generator, dtype=torch.float64)
    embedding = torch.randn(count, width, generator=generator, dtype=torch.float64)
    return Rows(embedding, states, torch.tensor([2, 9, 23, 77][:count]))


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("feed", [Batch(), Recursive()], ids=lambda f: type(f).__name__)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_loss_is_the_mean_over_all_places(selection: TokenSelection, feed: FeedMode, count: int):
    """Leaving out places without a weight changes nothing: the oracle computes all 77, one number at a time."""
    torch.manual_seed(0)
    model = LSTMDeprojector(LSTMConfig(6, 9)).double()
    batch = rows(count)
    loss = States().loss(Learner(model, selection, feed), batch)
    plan = selection(batch.length)
    target = plan.arrange(batch.states)
    prediction = feed(model, batch.embedding, target[:, 1:]).detach()
    total = 0.0
    for b in range(count):
        for place in range(1, 77):
            for d in range(6):
                total += (float(plan.weight[b, place]) * float(prediction[b, place - 1, d] - target[b, place, d])) ** 2
    assert loss.item() == pytest.approx(total / (count * 77 * 6), rel=1e-10)


def test_weight_stands_inside_the_square():
    weight = torch.tensor([[3.0]])
    assert weighted_loss(torch.ones(1, 1, 2), torch.zeros(1, 1, 2), weight, 1).item() == 9


def test_gradient_reaches_every_trainable_parameter():
    learner = Learner(LSTMDeprojector(LSTMConfig(6, 9)).double(), EosOnward(), Recursive())
    States().loss(learner, rows()).backward()
    for name, parameter in learner.model.named_parameters():
        if name.startswith("final_norm"):
            assert parameter.grad is None
        else:
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name


def test_nan_stops_and_says_where():
    module = DeprojectorModule(Learner(LSTMDeprojector(LSTMConfig(6, 9)).double(), EosOnward(), Batch()), States(), 1e-3)
    batch = rows()
    with pytest.raises(UserError, match="nan at step 0"):
        module.training_step(batch._replace(states=batch.states * float("nan")), 0)


def test_nan_of_the_held_out_loss_stops_too():
    module = DeprojectorModule(Learner(LSTMDeprojector(LSTMConfig(6, 9)).double(), EosOnward(), Batch()), States(), 1e-3)
    batch = rows()
    with pytest.raises(UserError, match="held-out free-running loss became nan at step 0"):
        module.validation_step(batch._replace(embedding=batch.embedding * float("nan")), 0)


def test_refuses_a_learning_rate_of_zero():
    with pytest.raises(UserError, match="learning_rate"):
        DeprojectorModule(Learner(LSTMDeprojector(LSTMConfig(6, 9)), EosOnward(), Batch()), States(), 0)


def test_cosine_rises_and_falls_to_nothing():
    shares = [cosine(step, 200) for step in range(201)]
    assert shares[0] == 0.1
    assert shares[9] == shares[10] == 1
    assert sorted(shares[10:], reverse=True) == shares[10:]
    assert shares[105] == pytest.approx(0.5)
    assert shares[200] == 0
    assert cosine(0, 1) == 1, "a run of one step learns"
