"""Where things stand on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from deproj.demo.drawing import STEPS
from deproj.demo.settings import MOST, ROWS, SEEDS, Settings
from deproj.demo.words import EXAMPLES, HELP, caption

__all__ = ["STYLE", "Asking", "Details", "Inputs", "Outputs"]

STYLE = """
.stale img { opacity: .3; filter: grayscale(1); }
#problem { color: #b00020; } #problem:empty { display: none; }
.picture .grid-wrap { height: auto !important; max-height: none !important; }
.caption { min-height: 3.2em; }
"""


@dataclass(frozen=True)
class Asking:
    """What is asked for, beside the pictures.

    Attributes:
        words: chips that are added to the prompt, by what they are about.
    """

    prompt: Any
    problem: Any
    go: Any
    examples: Any
    words: list[Any]

    @classmethod
    def placed(cls, start: Settings, vocabulary: Mapping[str, Sequence[str]]) -> Asking:
        """Puts it on the page."""
        prompt = gr.Textbox(start.prompts[0], label="prompt", max_lines=3, placeholder="cat, maid", elem_id="prompt")
        problem = gr.Markdown(elem_id="problem")
        go = gr.Button("Draw", variant="primary")
        examples = gr.Dataset(label="examples", components=[gr.Textbox(visible=False)], samples=[[one] for one in EXAMPLES])
        words = []
        if vocabulary:
            with gr.Accordion("words that this world knows: click to add", open=False):
                for kind, known in vocabulary.items():
                    hidden = gr.Textbox(visible=False)
                    chips = [[word] for word in known]
                    words.append(gr.Dataset(label=kind, components=[hidden], samples=chips, samples_per_page=50))
        with gr.Accordion("how to write prompts", open=False):
            gr.Markdown(HELP)
        return cls(prompt, problem, go, examples, words)


@dataclass(frozen=True)
class Details:
    """All else that can be set, under the pictures.

    Attributes:
        prompts, weights: of the rows after the first, and of all rows.
    """

    prompts: list[Any]
    weights: list[Any]
    negative: Any
    picture: Any
    picture_weight: Any
    to: Any
    share: Any
    strip: Any
    seed: Any
    die: Any
    count: Any
    strength: Any
    guidance: Any
    models: Any
    restore: Any

    @classmethod
    def placed(cls, start: Settings, models: Sequence[str], takes_pictures: bool) -> Details:
        """Puts them on the page, in two columns where there is room."""
        found: dict[str, Any] = {"prompts": [], "weights": []}
        with gr.Row():
            with gr.Column(min_width=320):
                found |= cls.drawing(start, models)
            with gr.Column(min_width=320):
                found |= cls.mixing(start, takes_pictures)
        return cls(**found)

    @staticmethod
    def drawing(start: Settings, models: Sequence[str]) -> dict[str, Any]:
        """How it is drawn, and by which models."""
        with gr.Row():
            seed = gr.Number(start.seed, label="seed", precision=0, minimum=0, maximum=SEEDS - 1, scale=2, min_width=140)
            die = gr.Button("🎲 another", size="sm", scale=1, min_width=110)
            count = gr.Slider(1, MOST, start.count, step=1, label="pictures", scale=2, min_width=160)
        with gr.Row():
            strength = gr.Slider(0, 1, start.strength, step=0.05, label="strength", min_width=130)
            guidance = gr.Slider(1, 15, start.guidance, step=0.5, label="guidance", min_width=130)
        chosen = gr.CheckboxGroup(list(models), value=list(start.models), label="models", visible=len(models) > 1)
        restore = gr.UploadButton("Restore the settings of a downloaded picture", file_types=[".png"], size="sm")
        found = {"seed": seed, "die": die, "count": count, "strength": strength, "guidance": guidance}
        return found | {"models": chosen, "restore": restore}

    @staticmethod
    def mixing(start: Settings, takes_pictures: bool) -> dict[str, Any]:
        """What is mixed in."""
        prompts = []
        with gr.Accordion("more prompts, weights, what to avoid", open=False):
            weights = [gr.Slider(-2, 2, start.weights[0], step=0.1, label="weight of the prompt")]
            for k in range(1, ROWS):
                with gr.Row():
                    prompts.append(gr.Textbox(start.prompts[k], label=f"prompt {k + 1}", scale=3, min_width=180))
                    weights.append(gr.Slider(-2, 2, start.weights[k], step=0.1, label="weight", scale=2, min_width=130))
            negative = gr.Textbox(start.negative, label="what to avoid")
        with gr.Accordion("a picture", open=False, visible=takes_pictures):
            # image_mode: what is transparent stays so until `to_rgb`
            sources: Any = ["upload", "clipboard"]
            picture = gr.Image(label="picture", type="pil", image_mode=None, sources=sources, height=170)
            gr.Markdown("It is added to the prompts, unless one of them calls it, as in `<photo>, red hair`.")
            picture_weight = gr.Slider(-2, 2, start.picture_weight, step=0.1, label="weight of the picture")
        with gr.Accordion("from one prompt to another", open=False):
            to = gr.Textbox(start.to, label="the prompt at the end")
            share = gr.Slider(0, 1, start.share, step=0.05, label="how far the way is gone")
            strip = gr.Button(f"Draw the whole way, {STEPS} pictures", size="sm")
        found = {"prompts": prompts, "weights": weights, "negative": negative, "picture": picture}
        return found | {"picture_weight": picture_weight, "to": to, "share": share, "strip": strip}


@dataclass(frozen=True)
class Inputs:
    """All that is typed, slid and clicked."""

    asking: Asking
    details: Details

    @property
    def fields(self) -> list[Any]:
        """All that `Settings.of_values` reads, in its order."""
        more = self.details
        rest = [more.picture_weight, more.to, more.share, more.negative, more.models, more.seed, more.count]
        return [self.asking.prompt, *more.prompts, *more.weights, *rest, more.strength, more.guidance]

    @property
    def typed(self) -> list[Any]:
        """What draws when Enter is pressed."""
        return [self.asking.prompt, *self.details.prompts, self.details.negative, self.details.to, self.details.seed]

    @property
    def slid(self) -> list[Any]:
        """What draws when it is let go."""
        more = self.details
        return [*more.weights, more.picture_weight, more.share, more.count, more.strength, more.guidance]


@dataclass(frozen=True)
class Outputs:
    """The page's right side: a row of pictures for each that draws, what is to be said, the link, and what was drawn before."""

    captions: list[Any]
    pictures: list[Any]
    said: Any
    link: Any
    history: Any

    @classmethod
    def placed(cls, rows: Sequence[str], main: str) -> Outputs:
        """Puts them on the page, two beside each other where there is room."""
        captions, pictures = [], []
        with gr.Row():
            for name in rows:
                with gr.Column(min_width=280):
                    captions.append(gr.Markdown(caption(name, main), elem_classes=["caption"]))
                    pictures.append(pictures_of(name))
        said = gr.Markdown()
        link = gr.Textbox(label="link to these settings", interactive=False, elem_classes="link", buttons=["copy"])
        label = "drawn before: click for the settings"
        history = gr.Gallery(label=label, columns=6, height=150, allow_preview=False, visible=False, elem_id="history")
        return cls(captions, pictures, said, link, history)


def pictures_of(name: str) -> Any:
    return gr.Gallery(
        label=name, show_label=False, buttons=["download", "fullscreen"], interactive=False, columns=2, object_fit="contain",
        elem_classes=["picture"],
    )  # fmt: skip
