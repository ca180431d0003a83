"""Where things stand on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from deproj.demo.drawing import STEPS
from deproj.demo.settings import MOST, ROWS, SEEDS, Settings
from deproj.demo.words import EXAMPLES, HELP, caption

__all__ = ["STYLE", "Inputs", "Outputs"]

STYLE = """
.stale img { opacity: .3; filter: grayscale(1); }
#problem { color: #b00020; } #problem:empty { display: none; }
.picture { max-width: 420px; }
"""


@dataclass(frozen=True)
class Inputs:
    """The page's left side.

    Attributes:
        fields: all that `Settings.of_values` reads, in its order.
        first: the first prompt.
        words: chips that are added to it, by what they are about.
        typed: fields that draw when Enter is pressed, `slid` when they are let go.
    """

    fields: list[Any]
    first: Any
    problem: Any
    words: list[Any]
    examples: Any
    picture: Any
    models: Any
    seed: Any
    die: Any
    strip: Any
    go: Any
    restore: Any
    typed: list[Any]
    slid: list[Any]

    @classmethod
    def placed(
        cls, start: Settings, models: Sequence[str], takes_pictures: bool, vocabulary: Mapping[str, Sequence[str]]
    ) -> Inputs:
        """Puts them on the page."""
        first = gr.Textbox(start.prompts[0], label="prompt", max_lines=3, placeholder="cat, maid", elem_id="prompt")
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
        prompts, weights = [first], []
        with gr.Accordion("more prompts, weights, what to avoid", open=False):
            weights.append(gr.Slider(-2, 2, start.weights[0], step=0.1, label="weight of the prompt"))
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
        with gr.Row():
            seed = gr.Number(start.seed, label="seed", precision=0, minimum=0, maximum=SEEDS - 1, scale=2, min_width=90)
            die = gr.Button("🎲 another", size="sm", scale=1, min_width=90)
            count = gr.Slider(1, MOST, start.count, step=1, label="pictures", scale=2, min_width=110)
        with gr.Row():
            strength = gr.Slider(0, 1, start.strength, step=0.05, label="strength", min_width=130)
            guidance = gr.Slider(1, 15, start.guidance, step=0.5, label="guidance", min_width=130)
        chosen = gr.CheckboxGroup(list(models), value=list(start.models), label="models", visible=len(models) > 1)
        restore = gr.UploadButton("Restore the settings of a downloaded picture", file_types=[".png"], size="sm")
        fields = [*prompts, *weights, picture_weight, to, share, negative, chosen, seed, count, strength, guidance]
        slid = [*weights, picture_weight, share, count, strength, guidance]
        typed = [*prompts, negative, to, seed]
        return cls(fields, first, problem, words, examples, picture, chosen, seed, die, strip, go, restore, typed, slid)


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
                    captions.append(gr.Markdown(caption(name, main)))
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
