"""Which number tells noise in a picture: ``python experiments/noise/measure.py``.

Noise is added to the latents of pictures from true states, and the pictures are decoded: the content stays, the noise rises.
A number is worth using if it rises with the noise, and differs less between contents than between amounts of noise.
"""

from __future__ import annotations

import numpy as np
import torch

from deproj.draw.renderer import sample
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.pixel.grammar import asked, held_out_prompts
from deproj.pixel.redraw import redraw

PROMPTS = 120
AMOUNTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8)


def estimate_sigma(pictures: torch.Tensor) -> np.ndarray:
    from skimage.restoration import estimate_sigma

    return np.array([estimate_sigma(p.numpy() / 255, channel_axis=-1, average_sigmas=True) for p in pictures])


@torch.no_grad()
def main() -> None:
    sd = StableDiffusion.named("pixel")
    encoder, reader = sd.encoder("cpu"), sd.reader()
    assert reader is not None
    prompts = held_out_prompts(PROMPTS, 3)
    pipe = sd.renderer(encoder, "cpu").pipe
    states, empty = encoder(prompts).states, encoder.empty.states.expand(PROMPTS, -1, -1)
    generator = [torch.Generator().manual_seed(k) for k in range(PROMPTS)]
    steps, guidance = sd.settings.steps, sd.settings.guidance
    latents = sample(pipe, states, empty, steps, guidance, generator=generator, output_type="latent").images
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)) * latents.std()
    who = np.array([dict(asked(prompt)).get("who", "not said") for prompt in prompts])
    print("| noise, in deviations of the latents | redraw | estimate_sigma | redraw by who is in it | estimate_sigma by who |")
    print("|---|---|---|---|---|")
    for amount in AMOUNTS:
        decoded = pipe.vae.decode((latents + amount * noise) / pipe.vae.config.scaling_factor).sample
        pictures = ((decoded / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1)
        found = redraw(pictures, reader)[1].numpy(), estimate_sigma(pictures)
        groups = [sorted(values[who == group].mean() for group in np.unique(who)) for values in found]
        print(
            f"| {amount} | {found[0].mean():.1f} | {found[1].mean():.4f} | {groups[0][0]:.1f} to {groups[0][-1]:.1f} "
            f"| {groups[1][0]:.4f} to {groups[1][-1]:.4f} |"
        )


if __name__ == "__main__":
    main()
