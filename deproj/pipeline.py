"""A deprojector and a Stable Diffusion as one pipeline, in diffusers' manner: embeddings in, pictures out.

    pipe = DeprojectorPipeline.from_pretrained("runs/…")
    pipe("cat, maid").images[0]

The pictures are drawn by a diffusers pipeline, `DeprojectorPipeline.sd`, which may be given another
scheduler, and whose `components` other pipelines are made of; they take what `encode_prompt` returns:

    img2img = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    states, negative = pipe.encode_prompt("cat, maid")
    img2img(image=picture, prompt_embeds=states, negative_prompt_embeds=negative).images[0]
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from deproj.clip.check import check_finite
from deproj.clip.distance import FAR
from deproj.clip.encoder import LOAD_ERRORS, TextEncoder, first_line
from deproj.clip.images import ImageEncoder
from deproj.draw.renderer import Renderer, draw, sample
from deproj.draw.settings import SdSettings
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.expression import Expression, Text, embed, expression_of, hints_at
from deproj.model.base import Deprojector
from deproj.model.belonging import told_apart, world_of
from deproj.process.errors import UserError
from deproj.process.files import refuse_pointer
from deproj.selection import PLACES, TokenSelection

__all__ = ["DeprojectorPipeline"]

Prompt = str | Expression | Image | Tensor


class DeprojectorPipeline:
    """Draws pictures from prompts, pictures and embeddings through a deprojector.

    Attributes:
        sd: the diffusers pipeline that draws, without text encoder.
        encoder: the text encoder that the deprojector inverts.
        model: the deprojector.
        pictures: CLIP's image encoder, or None where pictures can't be taken.
        steps, guidance: of the sampler, where a call doesn't set them.
        chunk: pictures to draw at once where there are many.
        name, path: of the Stable Diffusion, as ``pixel``; its folder, file or hub id.

    Args:
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
        self.sd, self.encoder, self.model = renderer.pipe, encoder, model.eval()
        self.pictures, self.selection = pictures, selection
        self.steps, self.guidance, self.chunk = renderer.settings.steps, renderer.settings.guidance, renderer.chunk
        self.name, self.path = renderer.settings.name, renderer.settings.path
        self.world = StableDiffusion(renderer.settings)

    def __repr__(self) -> str:
        takes = "texts and pictures" if self.pictures is not None else "texts"
        return f"DeprojectorPipeline({self.name}, {self.model!r}, takes {takes}, on {self.device})"

    @classmethod
    def from_pretrained(
        cls,
        sd: str | Path | SdSettings | Deprojector | None = None,
        deprojector: str | Path | Deprojector | None = None,
        clip: str | Path | None = None,
        pictures: Sequence[Image] | None = None,
        device: str | None = None,
        selection: TokenSelection | None = None,
    ) -> DeprojectorPipeline:
        """Loads a Stable Diffusion and a deprojector for it.

        Args:
            sd: ``pixel``, the folder, single file or hub id of a Stable Diffusion 1.x, or a run's settings of it. It can be left
                out, as in ``from_pretrained("all-batch")``, where the deprojector is a run's folder or the pixel world's.
            deprojector: a run's folder, an exported model's, a hub id, or the model itself.
            clip: folder or hub id of the CLIP that the text encoder comes from, for pictures; ``pixel`` brings its own.
            pictures: of all kinds, a hundred or more, to find the middle of CLIP's picture embeddings by; the pixel world
                draws its own. Without them, and without `clip`, pictures are refused.
            device: CUDA where there is one.
            selection: the model's, where it is a class of one's own; models trained on a shipped one know theirs.

        Raises:
            UserError: for what isn't there, is damaged, or doesn't belong together.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        of, model = told_apart(sd, deprojector)
        if of is None:
            world = world_of(model)
            chosen = StableDiffusion.named(world, clip) if isinstance(world, str) else StableDiffusion.of(world)
        else:
            chosen = StableDiffusion(of) if isinstance(of, SdSettings) else StableDiffusion.named(of, clip)
        named = model
        if not isinstance(model, Deprojector):
            model = Deprojector.from_pretrained(model)
        if not isinstance(of, SdSettings):  # whose clip skip is a choice; else it is the model's
            chosen = chosen.with_clip_skip(model.clip_skip)
        encoder = chosen.encoder(device)
        model.check_encoder(encoder, "this model" if named is model else str(named))
        seen = chosen.images(encoder, model.distance, pictures)
        renderer = chosen.renderer(encoder, device)
        return cls(renderer, encoder, model.to(device), seen, selection or model.selection)

    def with_model(self, model: Deprojector) -> DeprojectorPipeline:
        """The same Stable Diffusion with another deprojector.

        Raises:
            UserError: for one of another text encoder.
        """
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

    @property
    def device(self) -> torch.device:
        return self.model.sos.device

    def load_lora_weights(self, lora: str | Path, adapter_name: str | None = None, **options: Any) -> None:
        """Loads the U-Net part of a LoRA; `sd.set_adapters` weighs it and `sd.unload_lora_weights` takes it out again.

        Its part for the text encoder, where there is one, is left out with a warning: states come from the deprojector, which
        inverts the text encoder as it was. (The diffusers pipeline's own method fails on it, having no text encoder.)

        Args:
            lora: a safetensors file, a folder or a hub id, in diffusers' form or kohya's.
            adapter_name: to call it by; one is made up otherwise.
            options: of diffusers' `lora_state_dict`, as `weight_name`.

        Raises:
            UserError: without the extra ``lora``, and for what is no LoRA for this U-Net.
        """
        try:
            import peft  # noqa: F401
        except ModuleNotFoundError:
            raise UserError("LoRAs need peft: pip install 'deproj[lora]'.") from None
        if Path(lora).suffix == ".safetensors" and not Path(lora).exists():
            raise UserError(f"no LoRA at {lora}.")
        for path in [Path(lora), *Path(lora).glob("*.safetensors")]:
            refuse_pointer(path)
        try:
            weights, alphas, metadata = self.sd.lora_state_dict(
                str(lora), use_safetensors=True, return_lora_metadata=True, **options
            )
            check_finite(weights, f"the LoRA {lora}")
            if not any(key.startswith("unet.") for key in weights):
                raise ValueError("there are no weights for a U-Net in it.")
            self.sd.load_lora_into_unet(weights, alphas, self.sd.unet, adapter_name, metadata=metadata, _pipeline=self.sd)
        except UserError:
            raise
        except LOAD_ERRORS as error:
            if not any(self.sd.get_list_adapters().values()):
                self.sd.unet.unload_lora()  # diffusers leaves the layers wrapped
            raise UserError(f"{lora} is no LoRA for this Stable Diffusion: {first_line(error)}") from None
        if any(key.startswith("text_encoder.") for key in weights):
            warnings.warn("the LoRA's part for the text encoder is left out: the states are the deprojector's.", stacklevel=2)

    def embed(self, prompts: Sequence[Prompt], pictures: Mapping[str, Image] | None = None) -> Tensor:
        """Embeddings of prompts, (B, D).

        Args:
            pictures: by the names that prompts call them by, as in ``<photo>, red hair``.
        """
        return embed(self.read(prompts, pictures), self.encoder, self.pictures)

    def read(self, prompts: Sequence[Prompt], pictures: Mapping[str, Image] | None = None) -> list[Expression]:
        """Prompts as expressions."""
        if isinstance(prompts, (str, Expression, Image, Tensor)) and not (isinstance(prompts, Tensor) and prompts.ndim == 2):
            raise UserError(f"prompts are a list; got one {type(prompts).__name__}.")
        return [expression_of(prompt).with_pictures(pictures or {}) for prompt in prompts]

    def cautions(self, expressions: Sequence[Expression], embedding: Tensor) -> list[str]:
        """What a user should know of embeddings (B, D) before looking at their pictures: each a sentence."""
        said = []
        texts = {atom.text: None for expression in expressions for _, atom in expression.terms if isinstance(atom, Text)}
        for words, cut in zip(texts, self.encoder.tokenize(list(texts))[1].tolist(), strict=True):
            if cut:
                said.append(f"{shorten(words)!r} is longer than {PLACES} tokens; the rest of it is not seen.")
        strange = [word for word in self.world.never_said(" ".join(texts)) if word not in self.encoder.inversions]
        if strange := [word for word in strange if not hints_at([word.upper()])]:  # a mark such as BREAK is told as such
            said.append(f"the pixel world has never seen {', '.join(map(repr, strange[:6]))}; its words: {self.world.words}.")
        if self.model.distance is not None:
            for expression, far in zip(expressions, self.model.distance(embedding).tolist(), strict=True):
                if far > FAR:
                    said.append(
                        f"{shorten(str(expression))!r} is {far:.1f} times as far out as the prompts that the deprojector "
                        "was trained on; its picture may be wrong."
                    )
        return said

    def states_of(
        self,
        prompt: Prompt | Sequence[Prompt] | None = None,
        embedding: Tensor | None = None,
        image: Image | Sequence[Image] | None = None,
        strength: float = 1.0,
        pictures: Mapping[str, Image] | None = None,
    ) -> Tensor:
        """States for prompts, as `prompt_embeds` of any Stable Diffusion 1.x pipeline, (B, 77, D).

        Args:
            prompt: a text in the syntax of `deproj.expression`, an expression, a picture, an embedding (D,), or a list of
                any of these.
            embedding: instead of a prompt, (D,) or (B, D).
            image: instead of a prompt, one picture or more.
            strength: from the true states of the prompt (0) to the deprojected ones (1), which are blended place by place
                in the model's order. Below 1, prompts must be texts, or sums of texts, which are joined.
            pictures: by the names that prompts call them by, as in ``<photo>, red hair``.

        Raises:
            UserError: unless one of prompt, embedding and image is given, and for what can't be read or blended.
        """
        if not 0 <= strength <= 1:
            raise UserError(f"strength is 0 to 1; got {strength}.")
        prompts = as_list(prompt, embedding, image)
        expressions = self.read(prompts, pictures)
        embedded = embed(expressions, self.encoder, self.pictures)
        for caution in [*hints_at(prompts), *self.cautions(expressions, embedded)]:
            warnings.warn(caution, stacklevel=2)
        return self.blend(expressions, embedded, strength)

    def blend(self, expressions: Sequence[Expression], embedded: Tensor, strength: float) -> Tensor:
        """States of expressions and their embeddings (B, D), (B, 77, D)."""
        made = self.model.generate(embedded)
        if strength == 1:
            return made
        texts = [expression.plain for expression in expressions]
        if None in texts:
            without = shorten(str(expressions[texts.index(None)]))
            raise UserError(f"strength below 1 needs true states, which {without!r} has not: texts and sums of texts have.")
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
        self, states: Tensor, negative_prompt: Any = None, pictures: Mapping[str, Image] | None = None
    ) -> tuple[Tensor, Tensor]:
        """States (B, 77, D) that are there already, and those of `negative_prompt`, as `encode_prompt` returns them."""
        prompts = as_list("" if negative_prompt is None else negative_prompt, None, None)
        for hint in hints_at(prompts):
            warnings.warn(hint, stacklevel=2)
        given = self.read(prompts, pictures)
        if len(given) not in (1, len(states)):
            raise UserError(f"there are {len(given)} negative prompts for {len(states)} prompts; give one, or as many.")
        negative = self.model.generate(embed(given, self.encoder, self.pictures))
        for row, expression in enumerate(given):
            if expression.plain == "":
                negative[row] = self.encoder.empty.states[0]
        to = {"device": self.sd.unet.device, "dtype": self.sd.unet.dtype}
        return states.to(**to), negative.expand(len(states), -1, -1).to(**to)

    def __call__(
        self,
        prompt: Prompt | Sequence[Prompt] | None = None,
        *,
        embedding: Tensor | None = None,
        image: Image | Sequence[Image] | None = None,
        negative_prompt: Prompt | Sequence[Prompt] | None = None,
        strength: float = 1.0,
        pictures: Mapping[str, Image] | None = None,
        guidance_scale: float | None = None,
        num_inference_steps: int | None = None,
        num_images_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        **options: Any,
    ) -> Any:
        """Draws pictures.

        Args:
            prompt, embedding, image, strength, pictures: what of, as in `states_of`.
            negative_prompt: as in `encode_prompt`.
            guidance_scale, num_inference_steps: by default those of the Stable Diffusion's settings.
            num_images_per_prompt: pictures of each prompt stand side by side.
            generator: one for all pictures or a list of one a picture, as in diffusers.
            options: of the diffusers pipeline's call, as `output_type` or `callback_on_step_end`.

        Returns:
            What the diffusers pipeline returns, with `images`.

        Raises:
            UserError: for prompts that can't be read, and for options that there aren't, which diffusers would pass over.
        """
        known = inspect.signature(type(self.sd).__call__).parameters
        if strange := [name for name in options if name not in known]:
            raise UserError(f"the pipeline has no option {strange[0]!r}; see DeprojectorPipeline.__call__ and diffusers' own.")
        states = self.states_of(prompt, embedding, image, strength, pictures)
        positive, negative = self.with_negative(states, negative_prompt, pictures)
        return sample(
            self.sd,
            positive,
            negative,
            self.steps if num_inference_steps is None else num_inference_steps,
            self.guidance if guidance_scale is None else guidance_scale,
            num_images_per_prompt=num_images_per_prompt,
            generator=generator,
            **options,
        )

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
        raise UserError(f"an embedding is a tensor, (D,) or (B, D); got a {type(embedding).__name__}.")
    for one in image if isinstance(image, (list, tuple)) else [image]:
        if one is not None and not isinstance(one, Image):
            raise UserError(f"an image is a PIL picture; got a {type(one).__name__}; deproj.clip.images.open_picture reads one.")
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
