"""Where things stand on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from deproj.demo.drawing import STEPS
from deproj.demo.settings import MOST, ROWS, Settings
from deproj.demo.words import ABOUT_MODELS, EXAMPLES, HELP, caption
from deproj.draw.sheets import TRUE_STATES
from deproj.pixel import shipped

__all__ = ["HEAD", "STYLE", "Asking", "Details", "Inputs", "Outputs"]

#: Browsers ask for the icon at the root of the host otherwise, where under a path prefix another server may be.
HEAD = '<link rel="icon" href="./favicon.ico">'

STYLE = """
.stale img { opacity: .3; filter: grayscale(1); }
#page { display: grid; grid-template: "asking outputs" auto "details outputs" 1fr / minmax(320px, 2fr) 3fr; }
@media (max-width: 767px) { #page { grid-template: "asking" auto "outputs" auto "details" auto / 1fr; } }
#asking { grid-area: asking; }
#outputs { grid-area: outputs; }
#details { grid-area: details; }
#page > * { min-width: 0 !important; }
#problem p { color: #b00020; font-family: ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
.dark #problem p { color: #ff8a80; }
.far #problem { position: fixed; inset: 0 0 auto 0; z-index: 1000; padding: .5em 1em; background: var(--background-fill-primary);
    border-bottom: 2px solid #b00020; }
#said p { overflow-wrap: anywhere; }
.picture .grid-wrap { height: auto !important; min-height: 0 !important; max-height: none !important; }
.picture:not(.strip) .caption-label { display: none; }
#history .grid-container { grid-template-columns: repeat(auto-fill, minmax(110px, 1fr)) !important; }
#history .thumbnail-item { aspect-ratio: auto; height: auto; border-color: transparent !important; box-shadow: none !important; }
#history .thumbnail-item img { aspect-ratio: 1; height: auto; }
.picture .thumbnails:not(:has(button ~ button)), .picture .preview .caption { display: none; }
.picture .media-button:not(:has(~ * button ~ button)) { height: 100% !important; }
#history .caption-label { position: static; display: block; max-width: none; padding: 2px; font-size: 12px; line-height: 1.25;
    white-space: normal; overflow-wrap: anywhere; text-align: left; background: none; color: var(--body-text-color); border: 0; }
#history .grid-wrap { height: auto !important; min-height: 0 !important; padding-top: 2em; }
#problem:not(:has(p)), #said:not(:has(p)) { display: none; }
.caption { min-height: 3.2em; }
@media (min-width: 700px) { .column-of-pictures:not(.wide) { max-width: calc(50% - .5em); } }
.wide { flex-basis: 100% !important; }
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
        problem = gr.HTML(elem_id="problem")
        go = gr.Button("Draw", variant="primary", elem_id="go")
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
    """All else that can be set: under what is asked for, or on a phone under the pictures.

    Attributes:
        prompts, weights: of the rows after the first, and of all rows.
        sections: what of it can be folded up: the mixing, the picture, the way to another prompt.
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
    sections: list[Any]

    @classmethod
    def placed(cls, start: Settings, models: Sequence[str], takes_pictures: bool) -> Details:
        """Puts them on the page."""
        return cls(**cls.drawing(start, models), **cls.mixing(start, takes_pictures))

    @staticmethod
    def drawing(start: Settings, models: Sequence[str]) -> dict[str, Any]:
        """How it is drawn, and by which models."""
        with gr.Row():
            seed = gr.Number(start.seed, label="seed", scale=2, min_width=140)
            die = gr.Button("🎲 another", size="sm", scale=1, min_width=110)
            count = gr.Slider(1, MOST, start.count, step=1, label="pictures", scale=2, min_width=160)
        with gr.Row():
            strength = gr.Slider(0, 1, start.strength, step=0.05, label="strength", min_width=130)
            guidance = gr.Slider(1, 15, start.guidance, step=0.5, label="guidance", min_width=130)
        about = ABOUT_MODELS if list(models) == list(shipped()) else None
        chosen = gr.CheckboxGroup(list(models), value=list(start.models), label="models", info=about, visible=len(models) > 1)
        restore = gr.UploadButton(
            "Restore the settings of a downloaded picture: choose it, or drop it on the page", file_types=["image"], size="sm",
            elem_id="restore",
        )  # fmt: skip
        found = {"seed": seed, "die": die, "count": count, "strength": strength, "guidance": guidance}
        return found | {"models": chosen, "restore": restore}

    @staticmethod
    def mixing(start: Settings, takes_pictures: bool) -> dict[str, Any]:
        """What is mixed in."""
        prompts = []
        with gr.Accordion("more prompts, weights, what to avoid", open=False) as mixing:
            weights = [gr.Slider(-2, 2, start.weights[0], step=0.1, label="weight of the prompt")]
            for k in range(1, ROWS):
                with gr.Row():
                    prompts.append(gr.Textbox(start.prompts[k], label=f"prompt {k + 1}", scale=3, min_width=180))
                    label = f"weight of prompt {k + 1}"
                    weights.append(gr.Slider(-2, 2, start.weights[k], step=0.1, label=label, scale=2, min_width=160))
            negative = gr.Textbox(start.negative, label="what to avoid")
        with gr.Accordion("a picture", open=False, visible=takes_pictures) as with_picture:
            sources: Any = ["upload", "clipboard"]
            picture = gr.Image(label="picture", sources=sources, height=170, elem_id="photo")
            # the file is read where a mistake can be told, since Gradio's own reading ends in a bare error
            picture.preprocess = path_of  # type: ignore[method-assign]
            gr.Markdown("It is added to the prompts, unless one of them calls it, as in `<photo>, red hair`.")
            picture_weight = gr.Slider(-2, 2, start.picture_weight, step=0.1, label="weight of the picture")
        with gr.Accordion("from one prompt to another", open=False) as way:
            to = gr.Textbox(start.to, label="the prompt at the end")
            share = gr.Slider(0, 1, start.share, step=0.05, label="how far the way is gone")
            strip = gr.Checkbox(start.strip, label=f"the whole way, in {STEPS} pictures from one seed")
        found = {"prompts": prompts, "weights": weights, "negative": negative, "picture": picture}
        return found | {
            "picture_weight": picture_weight,
            "to": to,
            "share": share,
            "strip": strip,
            "sections": [mixing, with_picture, way],
        }


@dataclass(frozen=True)
class Inputs:
    """All that is typed, slid and clicked."""

    asking: Asking
    details: Details

    @property
    def fields(self) -> list[Any]:
        """All that `Settings.of_values` reads, in its order."""
        more = self.details
        rest = [more.picture_weight, more.to, more.share, more.strip, more.negative, more.models, more.seed, more.count]
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
    """The page's right side: what is to be said, a row of pictures for each that draws, the link, and what was drawn before."""

    columns: list[Any]
    pictures: list[Any]
    said: Any
    link: Any
    history: Any

    @classmethod
    def placed(cls, rows: Sequence[str], main: str) -> Outputs:
        """Puts them on the page, two beside each other where there is room."""
        columns, pictures = [], []
        said = gr.HTML(elem_id="said")
        with gr.Row():
            for name in rows:
                shown = name in (main, TRUE_STATES)
                with gr.Column(min_width=280, visible=shown, elem_classes=["column-of-pictures"]) as column:
                    gr.Markdown(caption(name, main), elem_classes=["caption"])
                    pictures.append(pictures_of(name))
                columns.append(column)
        link = gr.Textbox(label="link to these settings", max_lines=1, interactive=False, elem_classes="link", buttons=["copy"])
        history = gr.Gallery(
            label="drawn before", columns=6, height="auto", allow_preview=False, visible=False, elem_id="history", buttons=[]
        )
        return cls(columns, pictures, said, link, history)


def path_of(payload: Any) -> Any:
    """The path of a picture's file."""
    return None if payload is None else payload.path


def pictures_of(name: str) -> Any:
    return gr.Gallery(
        label=name, show_label=False, buttons=["download", "fullscreen"], interactive=False, columns=2, object_fit="contain",
        elem_classes=["picture"],
    )  # fmt: skip
