"""The parts of a run, built from its settings: what is trained, on what, and how it is watched."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from deproj.clip.encoder import TextEncoder
from deproj.data.batches import SamplesModule
from deproj.data.pictures import open_caption_pictures
from deproj.data.settings import DataSettings
from deproj.data.sources import PromptSource
from deproj.draw.denoiser import Denoiser
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.feed import FeedMode, Recursive
from deproj.measure.evaluator import Evaluator, evaluation_prompts
from deproj.model.base import Deprojector
from deproj.process.errors import UserError
from deproj.process.progress import Progress
from deproj.runs.folder import RunFolder
from deproj.selection import TokenSelection
from deproj.settings.build import build
from deproj.training.callbacks import BenchmarkSheet
from deproj.training.checkpoints import Behind
from deproj.training.graphs import GraphedFeed
from deproj.training.latents import CaptionLatents
from deproj.training.module import DeprojectorModule
from deproj.training.objective.base import Learner, Objective
from deproj.training.place import Place
from deproj.training.settings import RunSettings

__all__ = ["Parts", "Pictures", "measured_prompts"]


def measured_prompts(source: PromptSource, count: int) -> list[str]:
    """Up to `count` held-out prompts to measure a finished run on; none where there are fewer than two."""
    prompts = evaluation_prompts(source, count, 0) if count else []
    if count and len(prompts) < 2:
        print("The run won't be measured: that takes two held-out prompts or more that a comma or a space divides.")
        return []
    return prompts


@dataclass(frozen=True)
class Parts:
    """What is trained, and on what."""

    encoder: TextEncoder
    selection: TokenSelection
    module: DeprojectorModule
    data: SamplesModule

    @property
    def model(self) -> Deprojector:
        return self.module.model

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        chosen: RunSettings,
        place: Place,
        data: DataSettings,
        source: PromptSource,
        behind: Behind,
    ) -> Parts:
        """Builds them.

        Args:
            behind: what the run, if it goes on, has behind it.

        Raises:
            UserError: for a group that can't be built, and for weights to start from that don't fit.
        """
        selection = build(config["selection"], TokenSelection, "selection")
        feed: FeedMode = build(config["feed"], FeedMode, "feed")
        objective: Objective = build(config["objective"], Objective, "objective")
        sd = StableDiffusion(chosen.sd)
        encoder = sd.encoder(place.device)
        model: Deprojector = build(config["model"], partial, "model")(encoder)
        if config["init_from"] and not behind.steps:
            start_from(model, config["init_from"], encoder, config)
        model.provenance |= {
            "selection": config["selection"] | {"name": config["choices"]["selection"]},
            "feed": config["feed"] | {"name": config["choices"]["feed"]},
            "objective": config["objective"] | {"name": config["choices"]["objective"]},
            "init_from": config["init_from"],
        }
        latents = None
        if data.pictures is not None and not objective.through_unet:
            raise UserError(f"data.pictures is for an objective through the U-Net; objective={config['choices']['objective']}.")
        if objective.through_unet:
            name = config["choices"]["objective"]
            if not isinstance(feed, Recursive):
                raise UserError(f"objective={name} trains what is generated freely; take feed=recursive.")
            if place.rank.size > 1:  # a checkpoint holds one process's captions on their way
                raise UserError(f"objective={name} trains in one process, not in {place.rank.size}; take trainer=single.")
            renderer = sd.renderer(encoder, place.device, place.dtype)
            denoiser = Denoiser.of(renderer)
            objective.bind(denoiser, chosen.seed)
            if data.pictures is not None:
                pictures = open_caption_pictures(data.pictures, data.marks, data.combine, sd.miniature)
                latents = CaptionLatents(pictures, renderer, denoiser.latent_shape)
        if chosen.trainer.cuda_graphs:
            feed = GraphedFeed(feed, data.batch_size)
        learner = Learner(model, selection, feed, place.precision == "bf16")
        module = DeprojectorModule(learner, objective, chosen.optimizer.learning_rate, chosen.optimizer.schedule)
        if place.precision == 64:
            module.double()  # Lightning does so only after it has read a checkpoint, whose weights would be rounded
        rank = place.rank
        samples = SamplesModule(data, source, encoder, selection, chosen.seed, behind.steps, rank.number, rank.size, latents)
        return cls(encoder, selection, module, samples)


def start_from(model: Deprojector, source: str, encoder: TextEncoder, config: dict[str, Any]) -> None:
    """Copies the weights of a run, an exported or shipped model, or one on the Hub into a new model."""
    other = type(model).from_pretrained(source, encoder)
    learnt = other.provenance.get("selection", {}).get("_target_")
    if learnt not in (None, config["selection"]["_target_"]):
        raise UserError(
            f"{source} learnt the order of selection={other.provenance['selection']['name']}, this run's is "
            f"{config['choices']['selection']}; start from a model with the same selection."
        )
    if other.config != model.config:
        raise UserError(f"{source} is built as {other.config}, this run's model as {model.config}; set model.* alike.")
    # what is learnt, and nothing of the encoder's: the projection may be known to one of them only
    model.load_state_dict(dict(other.named_parameters()), strict=False)


@dataclass(frozen=True)
class Pictures:
    """How a run is watched and measured; each None where it isn't.

    Attributes:
        benchmark: draws the benchmark prompts every few epochs.
        evaluator: measures the finished model.
    """

    benchmark: BenchmarkSheet | None = None
    evaluator: Evaluator | None = None

    @property
    def seconds(self) -> float:
        """Spent on drawing the benchmark prompts so far."""
        return 0.0 if self.benchmark is None else self.benchmark.seconds

    @classmethod
    def of(
        cls,
        config: dict[str, Any],
        chosen: RunSettings,
        place: Place,
        data: DataSettings,
        encoder: TextEncoder,
        prompts: list[str],
        folder: RunFolder,
        progress: Progress,
    ) -> Pictures:
        """Loads what draws, on rank zero where pictures are asked for and quick enough.

        Args:
            prompts: to measure the finished model on.
        """
        if not place.first or not (chosen.render or prompts):
            return cls()
        sd, renderer, benchmark = StableDiffusion(chosen.sd), None, None
        if sd.quick_on(place.device):
            renderer = sd.renderer(encoder, place.device)
        else:
            name = chosen.sd.name
            print(f"Drawing nothing: there is no CUDA here, and sd={name} is too slow on a CPU (sd.cpu=true draws all the same).")
        if renderer is not None and chosen.render:
            names = [config["choices"][group] for group in ("selection", "feed", "objective")]
            label = ", ".join(name for name in names if name != "states")
            benchmark = BenchmarkSheet(encoder, renderer, folder, label, chosen.render, data.references, progress)
        evaluator = Evaluator(encoder, renderer, prompts, chosen.sd.clip, data.references, progress=progress) if prompts else None
        return cls(benchmark, evaluator)
