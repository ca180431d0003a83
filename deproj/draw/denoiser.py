"""The U-Net of a Stable Diffusion, frozen, with a gradient to the states it is given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deproj.draw.renderer import Renderer

__all__ = ["Denoiser"]


@dataclass
class Denoiser:
    """A frozen U-Net and the noise levels that it knows.

    Attributes:
        unet: of diffusers, its weights without a gradient.
        signal: share of the signal in the variance of x_t, ᾱ_t, (T,) float32 on the U-Net's device.
        velocity: whether the U-Net predicts v (Salimans & Ho 2022), else the noise.
        empty: states of the empty prompt, (77, D).
        guidance: classifier-free guidance of the sampler whose way is gone.
        chunk: samples to ask about at once where there are many.
    """

    unet: Any
    signal: Tensor
    velocity: bool
    empty: Tensor
    guidance: float
    chunk: int = 50

    @classmethod
    def of(cls, renderer: Renderer) -> Denoiser:
        """That of a renderer, whose U-Net's weights lose their gradient."""
        unet, scheduler = renderer.pipe.unet, renderer.pipe.scheduler
        unet.requires_grad_(False)
        device = unet.device
        return cls(
            unet,
            scheduler.alphas_cumprod.float().to(device),
            scheduler.config.prediction_type == "v_prediction",
            renderer.empty.to(device, unet.dtype),
            renderer.settings.guidance,
            renderer.chunk,
        )

    @property
    def levels(self) -> int:
        """How many noise levels there are."""
        return len(self.signal)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Of one picture's latents: channels, height, width."""
        config = self.unet.config
        size = config.sample_size
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        return config.in_channels, height, width

    def noise(self, x: Tensor, t: Tensor, states: Tensor) -> Tensor:
        """The noise ε that it finds in latents.

        Args:
            x: noised latents, (B, channels, h, w).
            t: noise level of each, (B,) int64.
            states: (B, 77, D).

        Returns:
            As `x`.
        """
        dtype = self.unet.dtype
        out: Tensor = self.unet(x.to(dtype), t, encoder_hidden_states=states.to(dtype)).sample.to(x)
        if self.velocity:
            a, b = self.of_signal(t)
            out = a * out + b * x
        return out

    def of_signal(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """√ᾱ_t and √(1 - ᾱ_t), (B, 1, 1, 1)."""
        signal = self.signal[t][:, None, None, None]
        return signal.sqrt(), (1 - signal).sqrt()

    def moved(self, x: Tensor, noise: Tensor, t: Tensor, to: Tensor) -> Tensor:
        """One step of DDIM (Song et al. 2021, σ = 0) from noise levels t to others; below 0 stands for the clean picture."""
        a, b = self.of_signal(t)
        clean = (x - b * noise) / a
        next_a, next_b = self.of_signal(to.clamp(min=0))
        done = (to < 0)[:, None, None, None]
        return torch.where(done, clean, next_a * clean + next_b * noise)

    def guided(self, conditioned: Tensor, without: Tensor) -> Tensor:
        """The noise as the sampler takes it, from that with the states and that of the empty prompt."""
        return without + self.guidance * (conditioned - without)

    @contextmanager
    def queries(self) -> Iterator[list[tuple[Any, Tensor, Tensor]]]:
        """Lists every cross-attention that is run within the block, with what it was given and what it put out."""
        seen: list[tuple[Any, Tensor, Tensor]] = []

        def note(layer: Any, arguments: tuple[Tensor, ...], options: dict[str, Any], out: Tensor) -> None:
            seen.append((layer, arguments[0] if arguments else options["hidden_states"], out))

        layers = [layer for name, layer in self.unet.named_modules() if name.endswith("attn2")]
        hooks = [layer.register_forward_hook(note, with_kwargs=True) for layer in layers]
        try:
            yield seen
        finally:
            for hook in hooks:
                hook.remove()
