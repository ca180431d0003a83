"""Objectives through the U-Net, as laws: nothing at the true states, gradients by finite differences, the metric's own value."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.data.cache import Rows
from deproj.draw.denoiser import Denoiser
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.feed import Recursive
from deproj.measure.metrics import Reference, conditioning_error
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.errors import UserError
from deproj.selection import EosOnward
from deproj.training.objective.base import Learner, States
from deproj.training.objective.conditioning import Attention, Conditioning, ThroughUNet, conditioning_errors, generated
from deproj.training.objective.ways import Asked, Pool, levels, way

WIDTH = 6
OBJECTIVES = [Conditioning(), Conditioning(extra=0.0), Attention()]


@pytest.fixture(params=[True, False], ids=["velocity", "noise"])
def denoiser(request: pytest.FixtureRequest) -> Denoiser:
    """A tiny U-Net of random weights in float64."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=4, in_channels=2, out_channels=2, layers_per_block=1, block_out_channels=(8,), norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D",), up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=WIDTH,
        attention_head_dim=2,
    )  # fmt: skip
    unet = unet.double().eval().requires_grad_(False)
    signal = torch.linspace(0.99, 0.01, 50, dtype=torch.float64)
    return Denoiser(unet, signal, request.param, torch.randn(77, WIDTH, dtype=torch.float64), 3.0)


def rows(count: int = 3) -> Rows:
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(count, 77, WIDTH, generator=generator, dtype=torch.float64)
    embedding = torch.randn(count, WIDTH, generator=generator, dtype=torch.float64)
    return Rows(embedding, states, torch.full((count,), 9))


def asked(denoiser: Denoiser) -> Asked:
    """Of the middle of a way."""
    return way(denoiser, rows(), 6, [3], torch.Generator().manual_seed(1))[0]


def bound(objective: ThroughUNet, denoiser: Denoiser) -> ThroughUNet:
    objective.bind(denoiser, 0)
    return objective


def named(objective: ThroughUNet) -> str:
    return f"{type(objective).__name__}-{getattr(objective, 'extra', '')}"


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_nothing_at_the_true_states_and_one_at_the_empty_prompts(objective: ThroughUNet, denoiser: Denoiser):
    of = asked(denoiser)
    above, below = bound(objective, denoiser).errors(of, of.rows.states)
    assert above.abs().max() < 1e-24
    assert (below > 0).all()
    above, below = objective.errors(of, denoiser.empty[None].expand_as(of.rows.states))
    assert torch.allclose(above, below, rtol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=named)
def test_the_gradient_is_that_of_finite_differences(objective: ThroughUNet, denoiser: Denoiser):
    of = asked(denoiser)
    made = torch.randn_like(of.rows.states).requires_grad_()

    def loss(made: Tensor) -> Tensor:
        above, below = bound(objective, denoiser).errors(of, made)
        return above.sum() / below.sum()

    (gradient,) = torch.autograd.grad(loss(made), made)
    assert gradient.abs().max() > 0
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        direction = torch.randn(made.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (loss(made + 1e-5 * direction) - loss(made - 1e-5 * direction)) / 2e-5
        assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-5)


def test_layers_computed_anew_give_the_same_gradient(denoiser: Denoiser):
    of = asked(denoiser)
    made = torch.randn_like(of.rows.states).requires_grad_()
    gradients = []
    for objective in (Conditioning(), Conditioning(checkpointing=True)):
        above, _ = bound(objective, denoiser).errors(of, made)
        gradients.append(torch.autograd.grad(above.sum(), made)[0])
    assert denoiser.unet.is_gradient_checkpointing
    torch.testing.assert_close(*gradients)


def test_it_is_the_evaluations_conditioning_error_on_the_same_draws(encoder: TextEncoder):
    renderer = StableDiffusion.named("pixel").renderer(encoder, "cpu")
    true = encoder(["cat maid", "1girl red hair", "1boy in class room"])
    reference = Reference.drawn(renderer, true.states, [0, 1, 2])
    made = encoder(["cat", "1girl", "1boy"]).states
    denoiser = Denoiser.of(renderer)
    sums = torch.zeros(2, dtype=torch.float64)
    rows = Rows(true.embedding, true.states, true.length)
    with torch.no_grad():
        for x, t, noise in zip(reference.latents, reference.steps, reference.noise, strict=True):
            level = t.expand(3)
            without = denoiser.noise(x, level, denoiser.empty[None].expand_as(made))
            above, below = conditioning_errors(denoiser, Asked(rows, x, level, noise, without), made)
            sums += torch.stack([above.sum(), below.sum()]).double()
    assert float(sums[0] / sums[1]) == pytest.approx(conditioning_error(renderer, reference, made).value, rel=1e-4)


def test_levels_go_from_noise_to_the_picture():
    found = levels(20, torch.tensor([0.0, 0.5, 0.99]), 1000)
    assert found[:, 0].tolist() == [999, 975, 950]
    assert (found[:, :-1] > found[:, 1:]).all()
    assert found[:, -1].tolist() == [50, 25, 0]


def test_a_step_of_ddim_from_the_true_noise_finds_the_picture(denoiser: Denoiser):
    generator = torch.Generator().manual_seed(2)
    clean, noise = (torch.randn(4, 2, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    t, to = torch.tensor([40, 30, 20, 10]), torch.tensor([20, 10, 0, -1])
    a, b = denoiser.of_signal(t)
    moved = denoiser.moved(a * clean + b * noise, noise, t, to)
    a, b = denoiser.of_signal(to.clamp(min=0))
    assert torch.allclose(moved[:3], (a * clean + b * noise)[:3])
    assert torch.allclose(moved[3], clean[3])


def pool_of(denoiser: Denoiser, draws: int, pool: Pool | None = None, first: int = 0) -> tuple[Pool, list[Asked]]:
    """A pool and what it gave: batch n has embeddings of n."""
    pool = pool or Pool(2, 5, seed=7)
    given = []
    for number in range(first, first + draws):
        batch = rows(8)
        given.append(pool.draw(denoiser, batch._replace(embedding=torch.full_like(batch.embedding, number))))
    return pool, given


def test_a_pool_moves_each_caption_on_from_noise_to_its_end(denoiser: Denoiser):
    _, given = pool_of(denoiser, 60)
    late = given[20:]
    seen = torch.cat([one.t for one in late])
    counts = torch.histc(seen.double(), 5, 0, 50)
    assert counts.min() > 0.15 * len(seen), "all noise levels in all batches together"
    assert all(len(set((one.t // 10).tolist())) >= 3 for one in late), "and several in each"
    begun = torch.cat([one.rows.embedding[:, 0] for one in late])
    numbers = torch.arange(20, 60).repeat_interleave(8)
    assert (numbers - begun).max() <= 2 * 5, "none stays longer than its way"
    for slot in range(8):  # the way of one place: levels fall, and begin anew with a new caption
        turn = [(float(one.rows.embedding[slot, 0]), int(one.t[slot])) for one in given[::2]]
        for (caption, t), (following, after) in itertools.pairwise(turn):
            assert after < t if caption == following else after >= 40


def test_a_pool_goes_the_way_of_the_sampler(denoiser: Denoiser):
    pool, steps = Pool(1, 5, seed=7), []
    for _ in range(12):
        steps.append(pool.draw(denoiser, rows(8)))
    after = next(k for k, one in enumerate(steps) if k > 5 and int(one.t[0]) >= 40)
    one = steps[after : after + 3]
    x = one[0].x[:1]
    for now, following in itertools.pairwise(one):
        true, without = (denoiser.noise(now.x[:1], now.t[:1], s) for s in (now.rows.states[:1], denoiser.empty[None]))
        x = denoiser.moved(now.x[:1], without + 3.0 * (true - without), now.t[:1], following.t[:1])
        torch.testing.assert_close(following.x[:1], x)


def test_every_use_of_a_caption_draws_one_of_its_variants(denoiser: Denoiser):
    pool, drawn = Pool(2, 5, seed=7), {}
    for number in range(40):
        batch = rows(8)
        others = torch.stack([torch.full_like(batch.embedding, variant) for variant in (1, 2, 3)], 1)
        batch = batch._replace(embedding=torch.zeros_like(batch.embedding), others=others, states=batch.states + number)
        for embedding, states in zip((of := pool.draw(denoiser, batch).rows).embedding, of.states, strict=True):
            drawn.setdefault(float(states.sum()), []).append(int(embedding[0]))
    assert {variant for variants in drawn.values() for variant in variants} == {0, 1, 2, 3}
    whole = [variants for variants in drawn.values() if len(variants) == 5]
    assert len(whole) > 20
    assert sum(len(set(variants)) > 1 for variants in whole) > 0.9 * len(whole), "anew at each use"


def test_first_the_states_alone(denoiser: Denoiser):
    torch.manual_seed(0)
    learner = Learner(LSTMDeprojector(LSTMConfig(WIDTH, 9)).double(), EosOnward(), Recursive())
    objective, batch = Conditioning(states_first=2), rows()
    objective.bind(denoiser, 0)
    alone = States().loss(learner, batch)
    assert [objective.loss(learner, batch).item() for _ in range(2)] == [alone.item()] * 2
    assert objective.loss(learner, batch) != alone
    other = Conditioning(states_first=2)
    other.bind(denoiser, 1)
    other.restore(copy.deepcopy(objective.state()))
    assert other.loss(learner, batch) == objective.loss(learner, batch), "it goes on from its state"


def test_the_states_error_is_added_of_the_states_that_were_made(denoiser: Denoiser):
    torch.manual_seed(0)
    calls: list[int] = []

    class Counted(Recursive):
        def __call__(self, model: Deprojector, embedding: Tensor, target: Tensor) -> Tensor:
            calls.append(target.shape[1])
            return super().__call__(model, embedding, target)

    model, batch = LSTMDeprojector(LSTMConfig(WIDTH, 9)).double(), rows()
    losses = []
    for share in (0.0, 0.5):
        objective = Conditioning(states=share)
        objective.bind(denoiser, 0)
        losses.append(objective.loss(Learner(model, EosOnward(), Counted()), batch))
    assert calls == [76, 76], "once a step: a CUDA graph can't be replayed twice before its backward"
    other = Conditioning()
    other.bind(denoiser, 0)
    added = States().loss(Learner(model, EosOnward(), Recursive()), other.asked(batch).rows)
    torch.testing.assert_close(losses[1] - losses[0], 0.5 * added)


def test_a_pool_goes_on_from_its_state(denoiser: Denoiser, tmp_path: Path):
    _, whole = pool_of(denoiser, 12)
    pool, _ = pool_of(denoiser, 7)
    torch.save(pool.state(), tmp_path / "state.pt")
    other = Pool(2, 5, seed=0)
    other.restore(torch.load(tmp_path / "state.pt", weights_only=True), torch.device("cpu"))
    _, rest = pool_of(denoiser, 5, other, 7)
    for one, same in zip(whole[7:], rest, strict=True):
        assert torch.equal(one.x, same.x)
        assert torch.equal(one.rows.embedding, same.rows.embedding)


def test_a_small_last_batch_is_taken(denoiser: Denoiser):
    pool = Pool(1, 5, seed=7)
    for size in (8, 8, 8, 8, 8, 2, 8):
        given = pool.draw(denoiser, rows(size))
        assert 0 < len(given.t) <= 8


def test_the_held_out_loss_is_the_same_whenever_it_is_asked_for(denoiser: Denoiser):
    torch.manual_seed(0)
    learner = Learner(LSTMDeprojector(LSTMConfig(WIDTH, 9)).double(), EosOnward(), Recursive())
    losses = []
    for seed in (0, 1):
        objective = Conditioning()
        objective.bind(denoiser, seed)
        for _ in range(seed):
            objective.loss(learner, rows()).backward()
        losses += [objective.held_out(learner, rows(), 0).item() for _ in range(2)]
    assert len(set(losses)) == 1
    assert losses[0] > 0


def test_all_places_are_generated_freely(denoiser: Denoiser):
    torch.manual_seed(0)
    model = LSTMDeprojector(LSTMConfig(WIDTH, 9)).double()
    batch = rows()
    made = generated(Learner(model, EosOnward(), Recursive()), batch)
    torch.testing.assert_close(made.detach(), model.generate(batch.embedding))
    assert made.requires_grad


@pytest.mark.parametrize("wrong", [{"states": -1.0}, {"pool": 0}, {"steps": 3}, {"extra": -0.1}, {"states_first": -1}])
def test_refuses_what_makes_no_sense(wrong: dict[str, float]):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Conditioning(**wrong)  # type: ignore[arg-type]


# --- Whole runs -----------------------------------------------------------------------------------

TINY = ["objective=conditioning", "objective.steps=4", "objective.pool=2", "data.batch_size=6", "data.size=24", "data.held_out=4"]


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "deprojector" / "model.safetensors")


def test_a_run_learns_and_goes_on_to_the_bit(train: Callable[..., Ended], tmp_path: Path):
    ended = train(*TINY, "trainer.max_epochs=2", "init_from=eos_onward-recursive", "hydra.run.dir=whole")
    assert ended.code == 0, ended.err
    assert train(*TINY, "init_from=eos_onward-recursive", "hydra.run.dir=parts").code == 0
    assert train("resume=parts", "trainer.max_epochs=2", defaults=False).code == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], value) for key, value in parts.items())
    losses = [
        json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))["val_loss"] for name in ("whole", "parts")
    ]
    assert losses[0] == losses[1]
    assert 0 < losses[0] < 1, "better than the empty prompt from the start"


def test_the_cheaper_form_and_the_mixed_one_run(train: Callable[..., Ended]):
    tiny = [setting for setting in TINY if setting != "objective=conditioning"]
    assert train("objective=attention", "objective.states=0.5", *tiny).code == 0


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["trainer=ddp", "trainer.devices=2"], "objective=conditioning trains in one process, not in 2; take trainer=single"),
        (["feed=batch"], "objective=conditioning trains what is generated freely; take feed=recursive"),
        (["objective.steps=2"], "steps at least 4"),
        (["optimizer.schedule=linear"], "optimizer.schedule is constant or cosine; got 'linear'"),
    ],
)
def test_mistakes_get_a_line(train: Callable[..., Ended], tmp_path: Path, settings: list[str], said: str):
    ended = train(*TINY, *settings)
    assert ended.code == 1
    assert said in ended.err
    assert not list(tmp_path.glob("runs/*/config.yaml")), "nothing is left"
