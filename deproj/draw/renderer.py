"""States to pictures, through a diffusers pipeline."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from deproj.clip.check import check_finite, variant
from deproj.clip.encoder import LOAD_ERRORS, first_line, locate
from deproj.clip.single_file import WITHOUT, SingleFile, is_file
from deproj.draw.settings import SdSettings
from deproj.process.errors import UserError
from deproj.process.quiet import quiet_loading

__all__ = ["Renderer", "Step", "draw", "sample"]

#: Is told, after each step of the sampler, how many pictures have made it.
Step = Callable[[int], object]


class Renderer:
    """Draws pictures from states.

    Args:
        settings: which pipeline, and how it samples.
        empty: the true states of the empty prompt, (77, D), the negative prompt of every picture.
        dtype: of the weights; by default float16 on CUDA and float32 on a CPU.
        variant: of the files of the weights; by default ``fp16`` where there is no other.
    """

    def __init__(
        self, settings: SdSettings, empty: Tensor, device: str, dtype: torch.dtype | None = None, variant: str | None = None
    ) -> None:
        with quiet_loading():  # diffusers imports image processors that want torchvision; we use none
            from diffusers import DPMSolverMultistepScheduler

        self.settings, self.empty, self.device = settings, empty, device
        where = locate(settings.path)
        self.dtype = dtype or (torch.float16 if device.startswith("cuda") else torch.float32)
        pipe = load_pipeline(where, settings.config, self.dtype, variant)
        check_finite(pipe.unet.state_dict(), f"the U-Net of {where!r}")
        check_finite(pipe.vae.state_dict(), f"the VAE of {where!r}")
        self.own_scheduler = pipe.scheduler
        pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, algorithm_type="dpmsolver++")
        pipe.set_progress_bar_config(disable=True)
        self.pipe: Any = pipe.to(device)
        # how many pictures to draw at once where there are many: more are no faster on a CPU, or need too much memory
        size = pipe.unet.config.sample_size
        self.chunk = 50 if max(size if isinstance(size, (list, tuple)) else [size]) <= 16 else 4

    def of_its_own(self) -> Any:
        """A diffusers pipeline of the same parts, but with the scheduler that stands in its folder."""
        parts = {**self.pipe.components, "scheduler": self.own_scheduler}
        pipe = type(self.pipe)(**parts, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @cached_property
    def hash(self) -> str:
        """Of the U-Net's and the VAE's weights and of how pictures are sampled."""
        schedule = dict(self.pipe.scheduler.config)
        if "_use_default_values" in schedule:  # diffusers' list, made of a set: in another order in every process
            schedule["_use_default_values"] = sorted(schedule["_use_default_values"])
        sampling = (self.settings.steps, self.settings.guidance, self.dtype, sorted(schedule.items()))
        digest = hashlib.blake2b(repr(sampling).encode(), digest_size=16)
        for part in (self.pipe.unet, self.pipe.vae):
            for name, value in part.state_dict().items():
                digest.update(name.encode() + value.cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def __call__(self, states: Tensor, seeds: Sequence[int], step: Step | None = None) -> Tensor:
        """Draws one picture for each sequence of states, all in one batch.

        A picture depends on its states and its seed alone (but for rounding), not on the batch.

        Args:
            states: (B, T, D).
            seeds: one a picture.
            step: as of `draw`.

        Returns:
            Pictures, (B, height, width, 3) uint8 on the CPU.
        """
        return self._draw(states, seeds, None, step)

    def trajectory(self, states: Tensor, seeds: Sequence[int], step: Step | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Draws, and returns what the U-Net saw on the way.

        Returns:
            Pictures as above, noisy latents (steps, B, channels, h, w) float32 on the CPU, timesteps (steps,).
        """
        seen: list[Tensor] = []
        pictures = self._draw(states, seeds, seen, step)
        return pictures, torch.stack(seen), self.pipe.scheduler.timesteps.cpu()

    @torch.no_grad()
    def noise(self, latents: Tensor, step: Tensor, states: Tensor) -> Tensor:
        """The noise that the U-Net finds in latents (B, channels, h, w) at a timestep, float32 on the CPU."""
        scheduler = self.pipe.scheduler
        x = latents.to(self.device, self.dtype)
        out = self.pipe.unet(x, step.to(self.device), encoder_hidden_states=states.to(self.device, self.dtype)).sample.float()
        if scheduler.config.prediction_type == "v_prediction":
            signal = scheduler.alphas_cumprod[int(step)].to(self.device)
            out = signal.sqrt() * out + (1 - signal).sqrt() * x.float()
        return out.cpu()

    @torch.no_grad()
    def _draw(self, states: Tensor, seeds: Sequence[int], seen: list[Tensor] | None, step: Step | None) -> Tensor:
        """Draws; appends the latents that the U-Net sees at every step to `seen`."""

        def note(unet: Any, arguments: tuple[Tensor, ...], options: dict[str, Any]) -> None:
            assert seen is not None
            seen.append(arguments[0][-len(states) :].float().cpu())  # guidance doubles the batch

        negative = self.empty[None].expand(len(states), -1, -1)
        hook = None if seen is None else self.pipe.unet.register_forward_pre_hook(note, with_kwargs=True)
        try:
            return draw(self.pipe, states, negative, seeds, self.settings.steps, self.settings.guidance, step)
        finally:  # else every later drawing would still be noted
            if hook is not None:
                hook.remove()


def load_pipeline(where: str, config: str | None, dtype: torch.dtype, chosen: str | None = None) -> Any:
    """A diffusers pipeline from a folder, a single file or a hub id, without text encoder and tokenizer.

    Args:
        config: of a single file, the folder of its configuration.
        chosen: variant of the files of the weights; by default ``fp16`` where there is no other.
    """
    with quiet_loading():  # as in `Renderer`
        from diffusers import StableDiffusionPipeline

    try:
        if is_file(where):
            if chosen is not None:
                raise UserError(f"{where} is a single file, which has no variants; leave variant={chosen!r} out.")
            return SingleFile.of(where, config).pipeline(dtype)
        with quiet_loading("diffusers"):
            return StableDiffusionPipeline.from_pretrained(
                where,
                text_encoder=None,
                tokenizer=None,
                dtype=dtype,
                **WITHOUT,
                variant=chosen or variant(where, ["unet", "vae"]),
            )
    except LOAD_ERRORS as error:
        raise UserError(f"the pipeline {where!r} cannot be loaded: {first_line(error)}") from None


def sample(pipe: Any, states: Tensor, negative: Tensor, steps: int, guidance: float, **options: Any) -> Any:
    """Calls a diffusers pipeline on states: the one place where that is done.

    Args:
        states, negative: of what is asked for and of what is to be avoided, (B, T, D).
        guidance: classifier-free guidance; `negative` counts above 1 only.
        options: of the pipeline's call, as `generator`.

    Returns:
        What the pipeline returns, with `images`.

    Raises:
        UserError: for states, latents and pictures with numbers that are NaN or infinite, which would be drawn black.
    """
    states = states.to(pipe.unet.dtype)  # diffusers moves them to where it computes, which may be elsewhere than its weights lie
    refuse_broken(torch.isfinite(states).flatten(1).all(1), "the states of")
    inner = options.pop("callback_on_step_end", None)
    if hasattr(inner, "tensor_inputs"):  # diffusers' own callbacks say by this what they are called with
        options["callback_on_step_end_tensor_inputs"] = list({"latents", *inner.tensor_inputs})
    with FiniteSteps(pipe, inner) as checked:
        return pipe(
            prompt_embeds=states,
            negative_prompt_embeds=negative.to(states.dtype) if guidance > 1 else None,
            guidance_scale=guidance,
            num_inference_steps=steps,
            callback_on_step_end=checked.note,
            **options,
        )


class FiniteSteps:
    """Notes at each step, and at the VAE, which pictures are still made of finite numbers; raises when the drawing is done.

    The notes stay on the device until then, so that no step waits for them.

    Args:
        inner: the user's own callback, called with what there is.
    """

    def __init__(self, pipe: Any, inner: Any = None) -> None:
        self.pipe, self.inner = pipe, inner
        self.latents: list[Tensor] = []
        self.decoded: list[Tensor] = []

    def __enter__(self) -> Self:
        def decoded(decoder: Any, arguments: Any, out: Tensor) -> None:
            self.decoded.append(torch.isfinite(out).flatten(1).all(1))

        self.hook = self.pipe.vae.decoder.register_forward_hook(decoded)
        return self

    def note(self, pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """diffusers' callback at the end of a step."""
        if "latents" in tensors:
            self.latents.append(torch.isfinite(tensors["latents"]).flatten(1).all(1))
        changed: dict[str, Tensor] = {} if self.inner is None else self.inner(pipe, step, timestep, tensors) or {}
        return changed

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.hook.remove()
        if kind is not None:
            return
        precision = str(self.pipe.unet.dtype).removeprefix("torch.")
        for step, finite in enumerate(self.latents, 1):
            refuse_broken(finite, f"step {step} of {len(self.latents)} in {precision}, by the U-Net, for")
        if self.decoded:
            refuse_broken(torch.cat(self.decoded), f"what the VAE makes in {precision} of")


def refuse_broken(finite: Tensor, what: str) -> None:
    """Refuses pictures of which one isn't finite, (B,) bool."""
    if not finite.all():
        first = int((~finite).nonzero()[0]) + 1
        raise UserError(
            f"{what} picture {first} of {len(finite)}: there are numbers that are NaN or infinite, so nothing is drawn. Look at "
            "the model and at its embeddings; float16 overflows where float32 (a CPU) may not."
        )


def draw(
    pipe: Any,
    states: Tensor,
    negative: Tensor,
    seeds: Sequence[int],
    steps: int,
    guidance: float,
    step: Step | None = None,
    **options: Any,
) -> Tensor:
    """Draws one picture for each sequence of states, each from a seed of its own.

    Args:
        states, negative: as of `sample`.
        seeds: B of them.
        step: is told after each step of the sampler that B pictures have made it.

    Returns:
        Pictures, (B, height, width, 3) uint8 on the CPU.
    """

    def reached(pipe: Any, number: int, time: Any, seen: dict[str, Any]) -> dict[str, Any]:
        assert step is not None
        step(len(states))
        return seen

    if step is not None:
        options["callback_on_step_end"] = reached
    generator = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    drawn = sample(pipe, states, negative, steps, guidance, generator=generator, output_type="pt", **options).images
    pictures: Tensor = (drawn.float().permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().cpu()
    return pictures
