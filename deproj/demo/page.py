"""The page: what happens when something on it is touched."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import randrange
from typing import Any, NamedTuple

import gradio as gr
from PIL import Image

from deproj.clip.pictures import open_picture
from deproj.demo.drawing import PAGE, STEPS, Drawn, draw
from deproj.demo.layout import Asking, Details, Inputs, Outputs
from deproj.demo.scripts import BEGIN, LINKED, SHOW_PICTURES, SHOW_PROBLEM
from deproj.demo.settings import ROWS, Settings
from deproj.demo.words import ABOUT, EXAMPLES
from deproj.draw.sheets import TRUE_STATES
from deproj.draw.stamp import Stamp, texts_of
from deproj.expression import parse
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

__all__ = ["Page"]

#: What is said where a picture comes back without the one that it was drawn with.
WITHOUT = "It was drawn with a picture, which the file doesn't hold"
#: Settings that come back from the history at most.
KEPT = 60


class Entry(NamedTuple):
    """What was drawn before: the first picture's file, the settings as a link's query, the photo's file, and both in words."""

    path: str
    query: str
    photo: str | None
    said: str


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

    def drawn(self, history: list[Entry], photo: str | None, *values: Any) -> list[Any]:
        """The outputs after drawing; after a mistake the problem, and the pictures of before in grey."""
        try:
            settings = Settings.of_values(values, self.models)
            found = draw(self.pipes, settings, self.start, photo_of(photo), self.folder)
        except UserError as error:
            stale = [gr.Gallery(elem_classes=["picture", "stale"])] * len(self.rows)
            return [paragraphs([str(error)], "alert"), *[gr.skip()] * len(self.rows), *stale, "", *[gr.skip()] * 3]
        query = settings.query(self.start)
        entry = Entry(str(found.files[settings.models[0]][0]), query, photo, settings.brief(self.start))
        history = [entry, *(other for other in history if (other.query, other.photo) != (query, photo))][:KEPT]
        return [
            "",
            *(self.column(name, found, settings.strip) for name in self.rows),
            *(self.shown(name, found, settings) for name in self.rows),
            paragraphs(found.said, "status"),
            f"?{query}",
            history,
            gr.Gallery(value=[(entry.path, entry.said) for entry in history], visible=True),
        ]

    def column(self, name: str, found: Drawn, strip: bool) -> Any:
        return gr.Column(visible=name in found.files, elem_classes=["column-of-pictures", *["wide"] * strip])

    def shown(self, name: str, found: Drawn, settings: Settings) -> Any:
        told = ", ".join(prompt for prompt in settings.prompts if prompt.strip()) or "the picture"
        paths = found.files.get(name, [])
        if settings.strip:
            way = [(str(path), f"{k / (STEPS - 1):.0%}") for k, path in enumerate(paths)]
            return gr.Gallery(value=way, columns=3, selected_index=None, elem_classes=["picture", "strip"])
        files = [(str(path), f"{told}, {'by ' * (name != TRUE_STATES)}{name}") for path in paths]
        return gr.Gallery(value=files, columns=min(len(files), 2) or 1, selected_index=None, elem_classes=["picture"])

    def filled(self, settings: Settings, photo: str | None = None) -> list[Any]:
        """The inputs, and the sections in which something is set, opened."""
        start = self.start
        mixed = settings.prompts[1:] != start.prompts[1:] or settings.weights != start.weights or bool(settings.negative)
        there = (mixed, photo is not None or settings.picture_weight != start.picture_weight, bool(settings.to))
        return [photo, *settings.values, *(gr.Accordion(open=True) if used else gr.skip() for used in there)]

    def opened(self, request: gr.Request) -> list[Any]:
        return self.filled(Settings.of_query(str(request.query_params), self.start, self.models))

    def example(self, sample: list[str]) -> list[Any]:
        """An example alone: all else is as at the start."""
        return self.filled(replace(self.start, prompts=(sample[0], *[""] * (ROWS - 1))))

    def recalled(self, history: list[Entry], chosen: gr.SelectData) -> list[Any]:
        entry = history[int(chosen.index)]
        return self.filled(Settings.of_query(entry.query, self.start, self.models), entry.photo)

    def restored(self, path: str) -> list[Any]:
        """The settings of a dropped picture: of this page, or of `deproj.generate`.

        Raises:
            gr.Error: where there are none; nothing is drawn then.
        """
        texts = None
        try:
            query = (texts := texts_of(Path(path))).get(PAGE)
            stamp = Stamp.of(Path(path))
            if stamp.pictures:
                what = ": drop that in too, under “a picture”." if self.takes_pictures else ", and pictures can't be taken here."
                gr.Warning(f"{WITHOUT}{what}", title="Without its picture", duration=None)
            restored = (
                Settings.of_stamp(stamp, self.start) if query is None else Settings.of_query(query, self.start, self.models)
            )
            return self.filled(restored)
        except UserError as error:
            photo = " A photo to draw from goes under “a picture”." * (self.takes_pictures and texts == {})
            said = f"{str(error).replace(str(path), 'This file')}{photo}"
            raise gr.Error(said, title="No settings", print_exception=False) from None

    # --- What it is done on -----------------------------------------------------------------------

    def build(self) -> gr.Blocks:
        """The page itself."""
        with gr.Blocks(title="deproj", analytics_enabled=False) as page:
            history = gr.State([])
            gr.Markdown(ABOUT)
            with gr.Row(elem_id="page"):
                with gr.Column(elem_id="asking"):
                    asking = Asking.placed(self.start, self.vocabulary)
                with gr.Column(elem_id="outputs"):
                    outputs = Outputs.placed(self.rows, self.models[0])
                with gr.Column(elem_id="details"):
                    inputs = Inputs(asking, Details.placed(self.start, self.models, self.takes_pictures))
            self.connect(page, history, inputs, outputs)
        page.queue(default_concurrency_limit=1)  # one picture after the other, and how many are before one's own is shown
        return page

    def connect(self, page: gr.Blocks, history: gr.State, inputs: Inputs, outputs: Outputs) -> None:
        """Says what happens when what is touched."""
        asking, details = inputs.asking, inputs.details
        given = [history, details.picture, *inputs.fields]
        changed = [asking.problem, *outputs.columns, *outputs.pictures, outputs.said, outputs.link, history, outputs.history]
        # what is asked for while something is drawn is drawn after it
        drawing: dict[str, Any] = {"fn": self.drawn, "inputs": given, "outputs": changed}
        drawing |= {"trigger_mode": "always_last", "concurrency_id": "drawing"}
        set_anew = [details.picture, *inputs.fields, *details.sections]
        touched = [asking.go.click, details.picture.upload, details.picture.clear, details.models.input, details.strip.input]
        touched += [field.submit for field in inputs.typed] + [slider.release for slider in inputs.slid]
        gr.on(touched, **drawing)
        details.die.click(lambda: randrange(10**6), None, details.seed).then(**drawing)
        asking.examples.click(self.example, asking.examples, set_anew).then(**drawing)
        for words in asking.words:
            words.click(added, [asking.prompt, words], asking.prompt).then(**drawing)
        details.restore.upload(self.restored, details.restore, set_anew, show_progress="hidden").success(**drawing)
        outputs.history.select(self.recalled, history, set_anew).then(**drawing)
        outputs.link.change(None, outputs.link, outputs.link, js=LINKED)
        shows = [asking.go.click, asking.examples.click, *(words.click for words in asking.words)]
        shows += [details.die.click, details.strip.input, outputs.history.select]
        gr.on(shows, None, js=SHOW_PICTURES)
        asking.problem.change(None, js=SHOW_PROBLEM)
        page.load(None, js=BEGIN)
        page.load(self.opened, None, set_anew).then(**drawing)


def paragraphs(said: Sequence[str], role: str) -> str:
    """Texts as HTML in which nothing is a mark: a link to the page may say anything.

    Args:
        role: for who listens to the page.
    """
    return "".join(f'<p role="{role}">{html.escape(one)}</p>' for one in said)


def photo_of(path: str | None) -> Image.Image | None:
    """The picture that was dropped in.

    Raises:
        UserError: for what is none.
    """
    if path is None:
        return None
    try:
        return open_picture(path)
    except UserError as error:
        raise UserError(f"a picture: {str(error).replace(path, 'the file')}") from None


def added(prompt: str, sample: list[str]) -> str:
    """A prompt with a word more: at its end, or, where nothing may follow its end, at its beginning."""
    word = sample[0]
    if not prompt.strip():
        return word
    behind = f"{prompt.rstrip().rstrip(',')}, {word}"
    for joined in (behind, f"{word}, {prompt.strip()}"):
        with suppress(UserError):
            parse(joined)
            return joined
    return behind
