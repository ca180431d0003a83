"""A deprojector and a Stable Diffusion as one pipeline, in diffusers' manner: embeddings in, pictures out.

    pipe = DeprojectorPipeline.from_pretrained("runs/…")
    pipe("cat, maid").images[0]

The pictures are drawn by a diffusers pipeline, `DeprojectorPipeline.sd`. What that one has and this one doesn't define is
its own here too, as `pipe.enable_freeu(…)`; docs/diffusers.md lists what is the same, ours, or refused. Other pipelines
are made of `components`, and take what `encode_prompt` returns:

    img2img = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    states, negative = pipe.encode_prompt("cat, maid")
    img2img(image=picture, prompt_embeds=states, negative_prompt_embeds=negative).images[0]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from types import NoneType
from typing import Any, Self

import torch
from PIL.Image import Image
from torch import Tensor

from deproj.clip.distance import FAR, in_words
from deproj.clip.encoder import TextEncoder
from deproj.clip.images import ImageEncoder
from deproj.clip.pictures import as_picture
from deproj.draw.as_diffusers import (
    PARTS,
    check_call,
    check_device,
    check_loading,
    check_progress,
    check_strength,
    check_values,
    passed_on,
)
from deproj.draw.lora import load_lora
from deproj.draw.renderer import Renderer, draw, sample
from deproj.draw.saved import save_pipeline
from deproj.draw.settings import SdSettings
from deproj.draw.sheets import enlarged
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.expression import Expression, Text, embed, expression_of, hints_at
from deproj.model.base import Deprojector
from deproj.model.belonging import told_apart, world_of
from deproj.process.caution import caution
from deproj.process.errors import UserError
from deproj.selection import PLACES, TokenSelection

__all__ = ["DeprojectorPipeline"]

Prompt = str | Expression | Image | Path | Tensor

#: By default PIL pictures are at least so many pixels high.
SIDE = 256


class DeprojectorPipeline:
    """Draws pictures from prompts, pictures and embeddings through a deprojector.

    Attributes:
        sd: the diffusers pipeline that draws, without text encoder, with the scheduler that stands in its folder.
        encoder: the text encoder that the deprojector inverts.
        model: the deprojector.
        pictures: CLIP's image encoder, or None where pictures can't be taken.
        steps, guidance: of the sampler, where a call doesn't set them.
        chunk: pictures to draw at once where there are many.
        name, path: of the Stable Diffusion, as ``pixel``; its folder, file or hub id.

    Args:
        renderer: its U-Net and VAE are taken; the scheduler is the folder's own, where sheets and measures all have
            DPM-Solver++, so that they compare.
        selection: in whose order the model's states stand; None where that is not known. Only `strength` needs it.
    """

    def __init__(
        self,
        renderer: Renderer,
        encoder: TextEncoder,
        model: Deprojector,
        pictures: ImageEncoder | None = None,
        selection: TokenSelection | None = None,
    ) -> None:
        model.check_encoder(encoder)
        if not isinstance(selection, (TokenSelection, NoneType)):
            raise UserError(f"selection is an object, as deproj.selection.EosOnward(); got {selection!r}.")
        self.sd, self.encoder, self.model = renderer.of_its_own(), encoder, model.eval()
        self.pictures, self.selection = pictures, selection
        self.steps, self.guidance, self.chunk = renderer.settings.steps, renderer.settings.guidance, renderer.chunk
        self.name, self.path = renderer.settings.name, renderer.settings.path
        self.world = StableDiffusion(renderer.settings)

    def __repr__(self) -> str:
        takes = "texts and pictures" if self.pictures is not None else "texts"
        return f"DeprojectorPipeline({self.name}, {self.model!r}, takes {takes}, on {self.device})"

    def __getattr__(self, name: str) -> Any:
        """What the diffusers pipeline has and this one doesn't define: its own.

        Raises:
            AttributeError: for what neither has, and for what has no meaning here, with the reason.
        """
        if name.startswith("_") or name == "sd":  # of what isn't built yet, as `copy` asks
            raise AttributeError(name)
        return passed_on(self.sd, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in PARTS:
            self.sd.register_modules(**{name: value})
        else:
            super().__setattr__(name, value)

    @classmethod
    def from_pretrained(
        cls,
        sd: str | Path | SdSettings | Deprojector | None = None,
        deprojector: str | Path | Deprojector | None = None,
        clip: str | Path | None = None,
        pictures: Sequence[Image] | None = None,
        device: str | None = None,
        selection: TokenSelection | None = None,
        torch_dtype: torch.dtype | None = None,
        variant: str | None = None,
        **options: Any,
    ) -> DeprojectorPipeline:
        """Loads a Stable Diffusion and a deprojector for it, or what `save_pretrained` wrote.

        Args:
            sd: ``pixel``, the folder, single file or hub id of a Stable Diffusion 1.x, or a run's settings of it. It can be left
                out, as in ``from_pretrained("all-batch")``, where the deprojector is a run's folder or the pixel world's.
            deprojector: a run's folder, an exported model's, a hub id, or the model itself.
            clip: folder or hub id of the CLIP that the text encoder comes from, for pictures; by default that of the pixel
                world, of a run's settings or of a saved pipeline.
            pictures: of all kinds, a hundred or more, to find the middle of CLIP's picture embeddings by; the pixel world
                draws its own. Without them, and without `clip`, pictures are refused.
            device: CUDA where there is one.
            selection: the model's, where it is a class of one's own; models trained on a shipped one know theirs.
            torch_dtype: of the U-Net and the VAE; by default float16 on CUDA and float32 on a CPU. Text encoder and
                deprojector, which are small, stay in float32.
            variant: of the U-Net's and the VAE's weights, as ``fp16``; by default that one where there is no other.
            options: diffusers' own are refused with the reason, but for ``dtype``, ``device_map`` with one device, and
                ``safety_checker=None``.

        Raises:
            UserError: for what isn't there, is damaged, or doesn't belong together.
        """
        device, torch_dtype = check_loading(device, torch_dtype, options)
        of, model = told_apart(sd, deprojector)
        if of is None:
            world = world_of(model)
            chosen = StableDiffusion.named(world) if isinstance(world, str) else StableDiffusion.of(world)
        else:
            chosen = StableDiffusion(of) if isinstance(of, SdSettings) else StableDiffusion.named(of)
        chosen = chosen.with_clip(clip)
        named = model
        if not isinstance(model, Deprojector):
            model = Deprojector.from_pretrained(model)
        if not isinstance(of, SdSettings):  # whose clip skip is a choice; else it is the model's
            chosen = chosen.with_clip_skip(model.clip_skip)
        encoder = chosen.encoder(device)
        model.check_encoder(encoder, "this model" if named is model else str(named))
        seen = chosen.images(encoder, model.distance, pictures)
        renderer = chosen.renderer(encoder, device, torch_dtype, variant)
        return cls(renderer, encoder, model.to(device), seen, selection or model.selection)

    def with_model(self, model: str | Path | Deprojector) -> DeprojectorPipeline:
        """The same Stable Diffusion with another deprojector, or the one that `Deprojector.from_pretrained` finds.

        Raises:
            UserError: for one of another text encoder, and for what is none.
        """
        model = model if isinstance(model, Deprojector) else Deprojector.from_pretrained(model)
        model.check_encoder(self.encoder)
        other = copy(self)
        other.model, other.selection = model.to(self.device).eval(), model.selection
        if self.pictures is not None:
            other.pictures = self.pictures.with_distance(model.distance)
        return other

    @property
    def components(self) -> dict[str, Any]:
        """Parts of the diffusers pipeline, to make others of."""
        return self.sd.components

    def set_progress_bar_config(self, **options: Any) -> None:
        """How the bar of a drawing looks, by tqdm's options; ``disable=False`` shows it.

        Raises:
            UserError: for an option that tqdm hasn't.
        """
        check_progress(options)
        self.sd.set_progress_bar_config(**options)

    @property
    def device(self) -> torch.device:
        return self.model.sos.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the U-Net."""
        return self.sd.unet.dtype

    def to(self, *args: Any, **options: Any) -> Self:
        """Moves all to a device, and the U-Net and the VAE to a dtype, as diffusers' own: ``pipe.to("cuda", torch.float16)``."""
        for given in (*args, options.get("device")):
            if isinstance(given, (str, int, torch.device)):
                check_device(given)
        self.sd.to(*args, **options)
        return self.small_parts_to(self.sd.device)

    def small_parts_to(self, device: torch.device | str) -> Self:
        """Moves what stays in float32, the text encoder, the deprojector and CLIP's image encoder, to a device."""
        self.encoder.to(device)
        self.model.to(device)
        if self.pictures is not None:
            self.pictures.to(device)
        return self

    def enable_model_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """diffusers' own: U-Net and VAE are on the card while they compute. The small parts stay on the processor."""
        self.sd.enable_model_cpu_offload(gpu_id, device)
        self.small_parts_to("cpu")

    def enable_sequential_cpu_offload(self, gpu_id: int | None = None, device: torch.device | str | None = None) -> None:
        """diffusers' own: one layer after another is on the card. The small parts stay on the processor."""
        self.sd.enable_sequential_cpu_offload(gpu_id, device)
        self.small_parts_to("cpu")

    def save_pretrained(self, folder: str | Path, variant: str | None = None) -> None:
        """`deproj.draw.saved.save_pipeline`: a diffusers folder that holds the deprojector too."""
        settings = replace(self.world.settings, steps=self.steps, guidance=self.guidance)
        save_pipeline(Path(folder), self.sd, self.encoder, self.model, settings, variant)

    def load_lora_weights(self, lora: str | Path, adapter_name: str | None = None, **options: Any) -> None:
        """`deproj.draw.lora.load_lora` of this pipeline; `set_adapters` weighs it, `unload_lora_weights` takes it out."""
        load_lora(self.sd, lora, adapter_name, **options)

    def load_textual_inversion(self, source: str | Path, token: str | None = None) -> str:
        """Adds a word to what prompts can say, and returns it: `deproj.clip.encoder.TextEncoder.load_textual_inversion`."""
        return self.encoder.load_textual_inversion(source, token)

    def embed(self, prompts: Prompt | Sequence[Prompt], pictures: Mapping[str, Image | str | Path] | None = None) -> Tensor:
        """Embeddings of prompts, (B, D).

        Args:
            prompts: one, or a list of them.
            pictures: or their paths, by the names that prompts call them by, as in ``<photo>, red hair``.
        """
        return embed(self.read(prompts, pictures), self.encoder, self.pictures)

    def read(
        self, prompts: Prompt | Sequence[Prompt], pictures: Mapping[str, Image | str | Path] | None = None
    ) -> list[Expression]:
        """Prompts, one or a list of them, as expressions."""
        given = as_list(prompts, None, None)
        return [expression_of(prompt).with_pictures(pictures or {}, self.encoder.inversions) for prompt in given]

    def cautions(self, expressions: Sequence[Expression], embedding: Tensor, vocabulary: bool = True) -> list[str]:
        """What a user should know of embeddings (B, D) before looking at their pictures: each a sentence.

        Args:
            vocabulary: whether the words that the world knows are listed where others are used.
        """
        said = []
        texts = {atom.text: None for expression in expressions for _, atom in expression.terms if isinstance(atom, Text)}
        for words, cut in zip(texts, self.encoder.tokenize(list(texts))[1].tolist(), strict=True):
            if cut:
                said.append(f"{shorten(words)!r} is longer than {PLACES} tokens; the rest of it is not seen.")
        strange = [word for word in self.world.never_said(" ".join(texts)) if word not in self.encoder.inversions]
        if strange := [word for word in strange if not hints_at([word.upper()])]:  # a mark such as BREAK is told as such
            known = f"; its words: {self.world.words}" * vocabulary
            said.append(f"the pixel world has never seen {', '.join(repr(shorten(word)) for word in strange[:6])}{known}.")
        if self.model.distance is not None:
            for expression, far in zip(expressions, self.model.distance(embedding).tolist(), strict=True):
                if far > FAR:
                    said.append(f"{shorten(str(expression))!r} is {in_words(far)}")
        return said

    def states_of(
        self,
        prompt: Prompt | Sequence[Prompt] | None = None,
        embedding: Tensor | None = None,
        image: Image | str | Path | Sequence[Image | str | Path] | None = None,
        strength: float = 1.0,
        pictures: Mapping[str, Image | str | Path] | None = None,
    ) -> Tensor:
        """States for prompts, as `prompt_embeds` of any Stable Diffusion 1.x pipeline, (B, 77, D).

        Args:
            prompt: a text in the syntax of `deproj.expression`, an expression, a picture, an embedding (D,), or a list of
                any of these.
            embedding: instead of a prompt, (D,) or (B, D).
            image: instead of a prompt, one picture or more.
            strength: from the true states of the prompt (0) to the deprojected ones (1), which are blended place by place
                in the model's order. Below 1, prompts must be texts, or sums of texts, which are joined.
            pictures: or their paths, by the names that prompts call them by, as in ``<photo>, red hair``.

        Raises:
            UserError: unless one of prompt, embedding and image is given, and for what can't be read or blended.
        """
        check_strength(strength)
        prompts = as_list(prompt, embedding, image)
        expressions = self.read(prompts, pictures)
        embedded = embed(expressions, self.encoder, self.pictures)
        for said in [*hints_at(prompts), *self.cautions(expressions, embedded)]:
            caution(said)
        return self.blend(expressions, embedded, strength)

    def blend(self, expressions: Sequence[Expression], embedded: Tensor, strength: float) -> Tensor:
        """States of expressions and their embeddings (B, D), (B, 77, D)."""
        made = self.model.generate(embedded)
        if strength == 1:
            return made
        texts = [expression.plain for expression in expressions]
        if None in texts:
            without = shorten(str(expressions[texts.index(None)]))
            raise UserError(
                f"strength below 1 needs true states, which only texts and sums of texts have; {without!r} is neither. Set "
                "strength to 1."
            )
        if self.selection is None:
            raise UserError("strength below 1 needs to know the order of the model's states; hand over its selection.")
        true = self.encoder([words or "" for words in texts])
        return torch.lerp(self.selection(true.length.cpu()).arrange(true.states.cpu()).to(made), made, strength)

    def encode_prompt(
        self, prompt: Prompt | Sequence[Prompt], negative_prompt: Prompt | Sequence[Prompt] | None = None, **options: Any
    ) -> tuple[Tensor, Tensor]:
        """States of prompts and of what is to be avoided, each (B, 77, D), in the diffusers pipeline's own precision.

        Args:
            negative_prompt: one for all prompts, or as many as these, deprojected as they are; nothing, or an empty text, is
                the empty prompt's true states.
            options: of `states_of`.
        """
        return self.with_negative(self.states_of(prompt, **options), negative_prompt, options.get("pictures"))

    def with_negative(
        self, states: Tensor, negative_prompt: Any = None, pictures: Mapping[str, Image | str | Path] | None = None
    ) -> tuple[Tensor, Tensor]:
        """States (B, 77, D) that are there already, and those of `negative_prompt`, as `encode_prompt` returns them."""
        prompts = as_list("" if negative_prompt is None else negative_prompt, None, None)
        for hint in hints_at(prompts):
            caution(hint)
        given = self.read(prompts, pictures)
        if len(given) not in (1, len(states)):
            raise UserError(f"there are {len(given)} negative prompts for {len(states)} prompts; give one, or as many.")
        negative = self.model.generate(embed(given, self.encoder, self.pictures))
        for row, expression in enumerate(given):
            if expression.plain == "":
                negative[row] = self.encoder.empty.states[0]
        negative = negative.expand(len(states), -1, -1)
        return states.to(self.device, self.dtype), negative.to(self.device, self.dtype)

    def __call__(
        self,
        prompt: Prompt | Sequence[Prompt] | None = None,
        *,
        embedding: Tensor | None = None,
        image: Image | str | Path | Sequence[Image | str | Path] | None = None,
        negative_prompt: Prompt | Sequence[Prompt] | None = None,
        strength: float = 1.0,
        pictures: Mapping[str, Image | str | Path] | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        size: int = SIDE,
        **options: Any,
    ) -> Any:
        """Draws pictures.

        Args:
            prompt, embedding, image, strength, pictures: what of, as in `states_of`.
            negative_prompt: as in `encode_prompt`.
            prompt_embeds, negative_prompt_embeds: instead of these, states (B, 77, D) that are there already.
            guidance_scale, num_inference_steps: by default those of the Stable Diffusion's settings.
            num_images_per_prompt: pictures of each prompt stand side by side.
            generator: one for all pictures or a list of one a picture, as in diffusers.
            size: PIL pictures are at least so many pixels high, small ones enlarged in sharp pixels; 0 leaves all as drawn.
            options: of the diffusers pipeline's call, as `output_type` or `callback_on_step_end`.

        Returns:
            What the diffusers pipeline returns, with `images`.

        Raises:
            UserError: for prompts that can't be read, and for options that there aren't, which diffusers would pass over.
        """
        check_call(self.sd, options)
        steps = self.steps if num_inference_steps is None else num_inference_steps
        guidance = self.guidance if guidance_scale is None else guidance_scale
        states_given = {"prompt_embeds": prompt_embeds, "negative_prompt_embeds": negative_prompt_embeds}
        width = self.encoder.width
        check_values(steps, guidance, strength, num_images_per_prompt, size, generator, states_given, width)
        if prompt_embeds is None:
            states = self.states_of(prompt, embedding, image, strength, pictures)
        elif prompt is None and embedding is None and image is None and strength == 1:
            states = prompt_embeds
        else:
            raise UserError("prompt_embeds are states, drawn as they are; leave prompt, embedding, image and strength out.")
        if negative_prompt_embeds is None:
            states, negative_prompt_embeds = self.with_negative(states, negative_prompt, pictures)
        elif negative_prompt is not None:
            raise UserError("give negative_prompt or negative_prompt_embeds, not both.")
        drawn = sample(
            self.sd,
            states,
            negative_prompt_embeds,
            steps,
            guidance,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            **options,
        )
        found = drawn[0] if isinstance(drawn, tuple) else drawn.images
        if size and isinstance(found, list) and isinstance(found[0], Image):
            found[:] = [enlarged(one, size) for one in found]
        return drawn

    def draw(
        self, states: Tensor, negative: Tensor, seeds: Sequence[int], guidance: float | None = None, **options: Any
    ) -> Tensor:
        """Pictures of states that are there already, (B, height, width, 3) uint8 on the CPU.

        Args:
            states, negative: (B, 77, D), as `encode_prompt` returns them.
            seeds: one a picture.
            options: of `deproj.draw.renderer.draw`, and of the diffusers pipeline's call.
        """
        return draw(self.sd, states, negative, seeds, self.steps, self.guidance if guidance is None else guidance, **options)


def as_list(prompt: Any, embedding: Tensor | None, image: Any) -> list[Any]:
    """The one that is given, as a list of prompts."""
    if embedding is not None and not isinstance(embedding, Tensor):
        raise UserError(f"an embedding is a tensor, (D,) or (B, D); got {type(embedding).__name__}.")
    if isinstance(image, (list, tuple)):
        image = [as_picture(one) for one in image]
    elif image is not None:
        image = as_picture(image)
    given = [one for one in (prompt, embedding, image) if one is not None]
    if len(given) != 1:
        raise UserError(
            f"give one of prompt, embedding and image; got {len(given)}. Mixed, they are a prompt: picture(image) + 'red hair'."
        )
    one = given[0]
    if isinstance(one, Tensor):
        if one.ndim not in (1, 2):
            raise UserError(f"an embedding is (D,) or (B, D); got {tuple(one.shape)}.")
        return list(one) if one.ndim == 2 else [one]
    prompts = list(one) if isinstance(one, (list, tuple)) else [one]
    if not prompts:
        raise UserError("there is no prompt in the list.")
    return prompts


def shorten(words: str, length: int = 60) -> str:
    return words if len(words) <= length else f"{words[: length - 1]}…"
