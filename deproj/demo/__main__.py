"""A page in the browser: prompts, weights and pictures to pictures, ``python -m deproj.demo`` or ``make demo``.

Needs the extra ``demo`` (Gradio). The page is served to this machine alone and loads nothing from elsewhere.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from deproj.pixel import shipped
from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.process.network import without_proxies
from deproj.process.progress import progress_here
from deproj.process.quiet import quiet_libraries

if TYPE_CHECKING:
    import gradio as gr

    from deproj.pipeline import DeprojectorPipeline

__all__: list[str] = []


def options() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m deproj.demo", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("models", nargs="*", metavar="MODEL", help="runs, exported models, hub ids, the main one first (those that ship)")
    sds = "pixel, or the folder, .safetensors file or hub id of a Stable Diffusion 1.x (what the main model was trained for)"
    add("--sd", help=sds)
    add("--clip", help="the CLIP that its text encoder comes from, for pictures")
    add("--reference", type=Path, help="folder of a hundred pictures or more of all kinds, for pictures with --clip")
    add("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 shows the page to the whole network")
    add("--port", type=int, default=7860, help="port (7860)")
    add("--root-path", metavar="/PATH", help="under which another server shows the page, as in https://example.org/PATH")
    return parser


def load(args: argparse.Namespace) -> dict[str, DeprojectorPipeline]:
    """The models, each with the same Stable Diffusion."""
    # torch and diffusers take seconds to import: mistakes in the options are told before
    from deproj.clip.images import open_pictures
    from deproj.model.base import Deprojector
    from deproj.pipeline import DeprojectorPipeline

    models = args.models or shipped()
    print(f"Loading {', '.join([args.sd] * (args.sd is not None) + models)} …", flush=True)
    reference = None if args.reference is None else open_pictures(args.reference)
    first = DeprojectorPipeline.from_pretrained(args.sd, models[0], args.clip, reference)
    others = {name: first.with_model(Deprojector.from_pretrained(name, first.encoder)) for name in models[1:]}
    return {models[0]: first} | others


def serve(page: gr.Blocks, args: argparse.Namespace) -> None:
    """Shows the page at an address.

    Raises:
        UserError: where nothing can be served at it.
    """
    import gradio as gr  # an extra

    from deproj.demo.layout import HEAD, STYLE

    host, port = args.host, args.port
    named = f"[{host}]" if ":" in host else host  # as an address of IPv6 stands in a link
    # this machine's fonts instead of fonts from elsewhere
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    try:
        socket.getaddrinfo(host, port)  # Gradio waits for a name that it can't serve at
        page.launch(
            server_name=named, server_port=port, share=False, theme=theme, css=STYLE, head=HEAD, quiet=True,
            root_path=args.root_path, footer_links=["gradio", "settings"], run_history=False, prevent_thread_lock=True,
        )  # fmt: skip
    except OSError as error:
        raise UserError(f"cannot serve at {named}:{port}: {error}; name another with --host or --port.") from None


def show(args: argparse.Namespace) -> None:
    """Loads the models and serves their page until it is stopped."""
    if not 1 <= args.port < 65536:
        raise UserError(f"--port is 1 to 65535; got {args.port}.")
    if args.root_path is not None and not args.root_path.startswith("/"):
        raise UserError(f"--root-path begins with /; got {args.root_path!r}.")
    quiet_libraries()
    with TemporaryDirectory(prefix="deproj-page-") as folder:
        with progress_here().phase("loading"):
            try:
                with without_proxies():
                    from deproj.demo.page import Page  # Gradio, which is an extra, and seconds
            except ModuleNotFoundError as error:
                if error.name != "gradio":
                    raise
                raise UserError("the page needs Gradio: pip install 'deproj[demo]'.") from None
            pipes = load(args)
            vocabulary = next(iter(pipes.values())).world.vocabulary
            page = Page(pipes, Path(folder), vocabulary).build()
        with without_proxies():  # Gradio asks the page itself whether it is there
            serve(page, args)
        print(f"The page is at {page.local_url} (Ctrl-C ends it).", flush=True)
        page.block_thread()


def main() -> int:
    args = options().parse_args()
    return run_command(lambda: show(args))


if __name__ == "__main__":
    sys.exit(main())
