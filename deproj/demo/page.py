"""The page: what happens when something on it is touched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import randrange
from typing import Any

import gradio as gr
from PIL import Image

from deproj.demo.drawing import PAGE, Drawn, draw
from deproj.demo.layout import Asking, Details, Inputs, Outputs
from deproj.demo.settings import ROWS, Settings
from deproj.demo.words import ABOUT, EXAMPLES
from deproj.draw.sheets import TRUE_STATES
from deproj.draw.stamp import Stamp
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

__all__ = ["Page"]

#: Settings that come back from the history at most.
KEPT = 60


class Page:
    """The page of some models.

    Args:
        pipes: by the models' names, the one that is shown first; all of one Stable Diffusion.
        folder: of the pictures' files.
        vocabulary: words to click on, by what they are about.
    """

    def __init__(
        self, pipes: dict[str, DeprojectorPipeline], folder: Path, vocabulary: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self.pipes, self.folder, self.vocabulary = pipes, folder, vocabulary or {}
        self.models, first = tuple(pipes), next(iter(pipes.values()))
        self.rows = (self.models[0], TRUE_STATES, *self.models[1:])
        self.start = Settings.start(EXAMPLES[0], self.models[0], first.guidance)
        self.takes_pictures = first.pictures is not None

    # --- What is done -----------------------------------------------------------------------------

    def drawn(self, history: list[tuple[str, str]], picture: Image.Image | None, *values: Any, strip: bool = False) -> list[Any]:
        """The outputs after drawing; after a mistake the problem, and the pictures of before in grey."""
        settings = Settings.of_values(values, self.models)
        try:
            found = draw(self.pipes, settings, self.start, picture, self.folder, strip)
        except UserError as error:
            stale = [gr.Gallery(elem_classes=["picture", "stale"])] * len(self.rows)
            return [f"```\n{error}\n```", *[gr.skip()] * len(self.rows), *stale, *[gr.skip()] * 4]
        query = settings.query(self.start)
        first = found.files[settings.models[0]][0]
        history = [(str(first), query), *(entry for entry in history if entry[1] != query)][:KEPT]
        return [
            "",
            *(gr.Markdown(visible=name in found.files) for name in self.rows),
            *(self.shown(name, found, strip) for name in self.rows),
            "\n\n".join(found.said),
            f"?{query}",
            history,
            gr.Gallery(value=[path for path, _ in history], visible=True),
        ]

    def shown(self, name: str, found: Drawn, strip: bool) -> Any:
        files = [str(path) for path in found.files.get(name, [])]
        columns = 3 if strip else min(len(files), 2) or 1
        return gr.Gallery(value=files, visible=bool(files), columns=columns, elem_classes=["picture"])

    def opened(self, request: gr.Request) -> list[Any]:
        return Settings.of_query(str(request.query_params), self.start, self.models).values

    def example(self, sample: list[str]) -> list[Any]:
        """An example alone: the other rows and the picture are as at the start."""
        return [None, *replace(self.start, prompts=(sample[0], *[""] * (ROWS - 1))).values]

    def recalled(self, history: list[tuple[str, str]], chosen: gr.SelectData) -> list[Any]:
        return Settings.of_query(history[int(chosen.index)][1], self.start, self.models).values

    def restored(self, path: str) -> list[Any]:
        """The settings of a dropped picture: of this page, or of `deproj.generate`; and the problem where there are none."""
        try:
            with Image.open(path) as image:
                query = getattr(image, "text", {}).get(PAGE)
            if query is not None:
                settings = Settings.of_query(query, self.start, self.models)
            else:
                settings = Settings.of_stamp(Stamp.of(Path(path)), self.start)
        except (UserError, OSError) as error:
            said = str(error).replace(str(path), "This file")
            return [f"```\n{said}\n```", *[gr.skip()] * len(self.start.values)]
        return ["", *settings.values]

    # --- What it is done on -----------------------------------------------------------------------

    def build(self) -> gr.Blocks:
        """The page itself."""
        with gr.Blocks(title="deproj", analytics_enabled=False) as page:
            history = gr.State([])
            gr.Markdown(ABOUT)
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    asking = Asking.placed(self.start, self.vocabulary)
                with gr.Column(scale=3, min_width=320):
                    outputs = Outputs.placed(self.rows, self.models[0])
            inputs = Inputs(asking, Details.placed(self.start, self.models, self.takes_pictures))
            self.connect(page, history, inputs, outputs)
        page.queue(default_concurrency_limit=1)  # one picture after the other, and how many are before one's own is shown
        return page

    def connect(self, page: gr.Blocks, history: gr.State, inputs: Inputs, outputs: Outputs) -> None:
        """Says what happens when what is touched."""
        asking, details = inputs.asking, inputs.details
        given = [history, details.picture, *inputs.fields]
        changed = [asking.problem, *outputs.captions, *outputs.pictures, outputs.said, outputs.link, history, outputs.history]
        drawing: dict[str, Any] = {"fn": self.drawn, "inputs": given, "outputs": changed}
        touched = [asking.go.click, details.picture.change, details.models.input]
        touched += [field.submit for field in inputs.typed] + [slider.release for slider in inputs.slid]
        gr.on(touched, **drawing)
        details.strip.click(**drawing | {"fn": lambda *values: self.drawn(*values, strip=True)})
        details.die.click(lambda: randrange(10**6), None, details.seed).then(**drawing)
        asking.examples.click(self.example, asking.examples, [details.picture, *inputs.fields]).then(**drawing)
        for words in asking.words:
            words.click(added, [asking.prompt, words], asking.prompt).then(**drawing)
        details.restore.upload(self.restored, details.restore, [asking.problem, *inputs.fields]).then(**drawing)
        outputs.history.select(self.recalled, history, inputs.fields).then(**drawing)
        outputs.link.change(None, outputs.link, outputs.link, js="query => new URL(query, location.href).href")
        page.load(self.opened, None, inputs.fields).then(**drawing)


def added(prompt: str, sample: list[str]) -> str:
    """A prompt with a word more."""
    return f"{prompt.rstrip().rstrip(',')}, {sample[0]}" if prompt.strip() else sample[0]
