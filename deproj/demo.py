"""A page in the browser: prompts, weights and pictures to pictures, ``python -m deproj.demo`` or ``make demo``.

Needs the extra ``demo`` (Gradio). The page is served to this machine alone and loads nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

import torch
from PIL.Image import Image, fromarray

from deproj.clip.images import open_pictures, to_rgb
from deproj.draw.sheets import TRUE_STATES, enlarged
from deproj.expression import Expression, hints_at, parse
from deproj.expression import picture as of_picture
from deproj.model.base import Deprojector
from deproj.model.store import shipped
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError, run_command
from deproj.process.network import without_proxies
from deproj.process.progress import progress_here
from deproj.process.quiet import quiet_libraries
from deproj.texts.benchmark import COMPOSED

if TYPE_CHECKING:
    import gradio as gr

__all__ = ["ROWS", "Settings", "build"]

#: Rows of prompt and weight.
ROWS = 4
EXAMPLES = (*COMPOSED, "cat maid | 1boy @ 0.4")
#: Seeds are below this: a browser's numbers are exact up to here.
SEEDS = 2**53
#: Width of a picture on the page, in pixels.
SHOWN = 256


@dataclass(frozen=True)
class Settings:
    """What the page is set to, but for the picture, which is no part of the link.

    Attributes:
        prompts: in the syntax of `deproj.expression`, one a row.
        weights: of the rows, then of the picture.
        models: names of those that draw.
    """

    prompts: tuple[str, ...]
    weights: tuple[float, ...]
    models: tuple[str, ...]
    seed: int
    guidance: float

    def query(self) -> str:
        """As the query of a link."""
        pairs: list[tuple[str, Any]] = [("prompt", prompt) for prompt in self.prompts]
        pairs += [("weight", f"{weight:g}") for weight in self.weights]
        pairs += [("model", model) for model in self.models]
        return urlencode([*pairs, ("seed", self.seed), ("guidance", f"{self.guidance:g}")])

    @classmethod
    def of_page(cls, values: Sequence[Any], names: Sequence[str]) -> Settings:
        """What the page's inputs are set to, in the order of `Inputs.values`; models in the order of `names`."""
        prompts, weights = values[:ROWS], values[ROWS : 2 * ROWS + 1]
        models, seed, guidance = values[2 * ROWS + 1 :]
        return cls(
            tuple(prompt or "" for prompt in prompts),
            tuple(map(float, weights)),
            tuple(name for name in names if name in models),
            int(seed or 0),
            float(guidance),
        )

    @classmethod
    def of(cls, query: str, otherwise: Settings) -> Settings:
        """Reads a link's query; what it lacks, or what is no such thing, is `otherwise`."""
        given = parse_qs(query, keep_blank_values=True)
        settings = otherwise
        if "prompt" in given:
            settings = replace(settings, prompts=tuple((given["prompt"] + [""] * ROWS)[:ROWS]))
        if models := tuple(name for name in given.get("model", []) if name in otherwise.models):
            settings = replace(settings, models=models)
        with suppress(ValueError):
            weights = tuple(within(weight, -2, 2) for weight in given.get("weight", []))
            if len(weights) == ROWS + 1:
                settings = replace(settings, weights=weights)
        with suppress(KeyError, ValueError):
            settings = replace(settings, guidance=within(given["guidance"][0], 1, 15))
        with suppress(KeyError, ValueError):
            if 0 <= (seed := int(given["seed"][0])) < SEEDS:
                settings = replace(settings, seed=seed)
        return settings


def within(text: str, low: float, high: float) -> float:
    """A number, the nearest from `low` to `high`; a ValueError for what is none."""
    number = float(text)
    if number != number:
        raise ValueError(text)
    return min(max(number, low), high)


def expression_of_page(settings: Settings, picture: Image | None) -> Expression:
    """The weighted sum of the rows and the picture.

    Raises:
        UserError: for a prompt that cannot be read, and for nothing at all.
    """
    *weights, own = settings.weights
    rows = [(prompt, weight) for prompt, weight in zip(settings.prompts, weights, strict=True) if prompt.strip() and weight]
    total = Expression()
    for prompt, weight in rows:
        total += parse(prompt) * weight
    if picture is not None and own:
        total += of_picture(to_rgb(picture, "the picture")) * own
    if not total.terms:
        raise UserError("there is nothing to draw yet: type a prompt, or drop a picture in.")
    return total


def draw(pipes: dict[str, DeprojectorPipeline], settings: Settings, picture: Image | None) -> tuple[dict[str, Image | None], str]:
    """Pictures by name, the true states' first (None where there are no true states), and what is to be said of them."""
    pipe = next(iter(pipes.values()))
    expression = expression_of_page(settings, picture)
    # a picture's way to the texts is each model's own
    embeddings = {name: pipes[name].embed([expression]) for name in settings.models}
    written = [prompt for prompt, weight in zip(settings.prompts, settings.weights, strict=False) if prompt.strip() and weight]
    said = hints_at(written)
    said += [caution for name, embedding in embeddings.items() for caution in pipes[name].cautions([expression], embedding)]
    plain = expression.plain
    states = {} if plain is None else {TRUE_STATES: pipe.encoder([plain]).states[0]}
    states |= {name: pipes[name].model.generate(embedding)[0] for name, embedding in embeddings.items()}
    if not states:
        raise UserError("there is nothing to draw with: choose a model.")
    negative = pipe.encoder.empty.states.expand(len(states), -1, -1)
    pictures = pipe.draw(torch.stack(list(states.values())), negative, [settings.seed] * len(states), settings.guidance)
    images = [enlarged(fromarray(picture.numpy()), SHOWN) for picture in pictures]
    drawn: dict[str, Image | None] = {TRUE_STATES: None} | dict(zip(states, images, strict=True))
    if plain is None:
        said.append("No true states: only a text, or a sum of texts, has any.")
    if picture is not None:
        said.append("The link does not hold the picture.")
    return drawn, "\n\n".join(dict.fromkeys(said))


@dataclass(frozen=True)
class Inputs:
    """The page's left side.

    Attributes:
        weights: of the rows, then of the picture.
    """

    prompts: list[Any]
    weights: list[Any]
    picture: Any
    models: Any
    seed: Any
    guidance: Any
    go: Any

    @property
    def values(self) -> list[Any]:
        """All that `Settings.of_page` reads."""
        return [*self.prompts, *self.weights, self.models, self.seed, self.guidance]

    @classmethod
    def placed(cls, start: Settings, takes_pictures: bool) -> Inputs:
        """Puts them on the page."""
        import gradio as gr  # an extra

        prompts, weights = [], []
        for k in range(ROWS):
            with gr.Row():
                prompts.append(gr.Textbox(start.prompts[k], label=f"prompt {k + 1}", scale=3, min_width=180, max_lines=2))
                weights.append(gr.Slider(-2, 2, 1, step=0.1, label="weight", scale=2, min_width=130))
        with gr.Row(visible=takes_pictures):
            sources: Any = ["upload", "clipboard"]
            picture = gr.Image(
                label="picture", type="pil", image_mode=None, sources=sources, height=150, scale=3, min_width=180
            )  # image_mode: what is transparent stays so until `to_rgb`
            weights.append(gr.Slider(-2, 2, 1, step=0.1, label="weight of the picture", scale=2, min_width=130))
        models = gr.CheckboxGroup(list(start.models), value=list(start.models), label="models")
        with gr.Row():
            seed = gr.Number(0, label="seed", precision=0, minimum=0, maximum=SEEDS - 1, scale=1, min_width=80)
            guidance = gr.Slider(1, 15, start.guidance, step=0.5, label="guidance", scale=2, min_width=130)
        return cls(prompts, weights, picture, models, seed, guidance, gr.Button("Draw", variant="primary"))


@dataclass(frozen=True)
class Outputs:
    """The page's right side: the pictures, what is to be said of them, and the link."""

    pictures: list[Any]
    said: Any
    link: Any

    @classmethod
    def placed(cls, names: Sequence[str]) -> Outputs:
        """Puts them on the page, a picture a name."""
        import gradio as gr  # an extra

        buttons: Any = ["download", "fullscreen"]
        looks: dict[str, Any] = {
            "height": SHOWN,
            "width": SHOWN,
            "min_width": SHOWN,
            "interactive": False,
            "elem_classes": "picture",
        }
        with gr.Row():
            pictures = [gr.Image(label=name, alt_text=f"the picture of {name}", buttons=buttons, **looks) for name in names]
        said = gr.Markdown()
        link = gr.Textbox(label="link to these settings", interactive=False, elem_classes="link", buttons=["copy"])
        return cls(pictures, said, link)

    @property
    def all(self) -> list[Any]:
        return [*self.pictures, self.said, self.link]


def build(pipes: dict[str, DeprojectorPipeline]) -> gr.Blocks:
    """The page.

    Args:
        pipes: by the models' names; all of one Stable Diffusion.
    """
    import gradio as gr  # an extra

    names, first = tuple(pipes), next(iter(pipes.values()))
    rows = (TRUE_STATES, *names)
    start = Settings((EXAMPLES[0], *[""] * (ROWS - 1)), (1.0,) * (ROWS + 1), names, 0, first.guidance)

    def shown(picture: Image | None, *values: Any) -> list[Any]:
        settings = Settings.of_page(values, names)
        try:
            drawn, said = draw(pipes, settings, picture)
        except UserError as error:
            return [*[gr.skip()] * len(rows), f"```\n{error}\n```", gr.skip()]
        return [*(gr.Image(value=drawn.get(name), visible=name in drawn) for name in rows), said, f"?{settings.query()}"]

    def opened(request: gr.Request) -> list[Any]:
        given = Settings.of(str(request.query_params), start)
        return [*given.prompts, *given.weights, list(given.models), given.seed, given.guidance]

    opened.__annotations__ = {"request": gr.Request}  # Gradio reads this one, and not as a string

    with gr.Blocks(title="deproj", analytics_enabled=False) as page:
        gr.Markdown("# deproj\nPictures from embeddings: of prompts, of their sums, of pictures.")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                inputs = Inputs.placed(start, first.pictures is not None)
            with gr.Column(scale=3, min_width=320):
                outputs = Outputs.placed(rows)
        gr.Examples([[example] for example in EXAMPLES], [inputs.prompts[0]], label="examples")
        drawing = {"fn": shown, "inputs": [inputs.picture, *inputs.values], "outputs": outputs.all}
        submitted = [prompt.submit for prompt in inputs.prompts] + [weight.release for weight in inputs.weights]
        changed = [inputs.picture.change, inputs.models.change, inputs.guidance.release]
        gr.on([inputs.go.click, *submitted, inputs.seed.submit], **drawing)
        gr.on(changed, **drawing)
        outputs.link.change(None, outputs.link, outputs.link, js="query => new URL(query, location.href).href")
        page.load(opened, None, inputs.values).then(**drawing)
    page.queue(default_concurrency_limit=1)  # one picture after the other, and how many are before one's own is shown
    return page


def theme() -> gr.themes.Default:
    """Gradio's own, with this machine's fonts instead of fonts from elsewhere."""
    import gradio as gr  # an extra

    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Shows the page at an address.

    Raises:
        UserError: where nothing can be served at it.
    """
    named = f"[{host}]" if ":" in host else host  # as an address of IPv6 stands in a link
    try:
        socket.getaddrinfo(host, port)  # Gradio waits for a name that it can't serve at
        page.launch(
            server_name=named, server_port=port, share=False, theme=theme(), quiet=True,
            footer_links=["gradio", "settings"], run_history=False, prevent_thread_lock=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"cannot serve at {named}:{port}: {error}; name another with --host or --port.") from None


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deproj.demo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="runs, exported models, hub ids (default: those that ship)")
    parser.add_argument(
        "--sd", default="pixel", help="pixel, or the folder, .safetensors file or hub id of a Stable Diffusion 1.x (pixel)"
    )
    parser.add_argument("--clip", help="the CLIP that its text encoder comes from, for pictures")
    parser.add_argument(
        "--reference", type=Path, help="folder of a hundred pictures or more of all kinds, for pictures with --clip"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 shows the page to the whole network")
    parser.add_argument("--port", type=int, default=7860, help="port (7860)")
    args = parser.parse_args()

    def command() -> None:
        if not 1 <= args.port < 65536:
            raise UserError(f"--port is 1 to 65535; got {args.port}.")
        models = args.models or shipped()
        quiet_libraries()
        with progress_here().phase("loading"):
            try:
                with without_proxies():
                    import gradio  # noqa: F401  (an extra, and seconds)
            except ModuleNotFoundError:
                raise UserError("the page needs Gradio: pip install 'deproj[demo]'.") from None
            print(f"Loading {args.sd} and {', '.join(models)} …", flush=True)
            reference = None if args.reference is None else open_pictures(args.reference)
            first = DeprojectorPipeline.from_pretrained(args.sd, models[0], args.clip, reference)
            pipes = {models[0]: first}
            for name in models[1:]:
                pipes[name] = first.with_model(Deprojector.from_pretrained(name, first.encoder))
            page = build(pipes)
        with without_proxies():  # Gradio asks the page itself whether it is there
            serve(page, args.host, args.port)
        print(f"The page is at {page.local_url} (Ctrl-C ends it).", flush=True)
        page.block_thread()

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
