"""The page in a real browser, and what its links and pictures hold."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import call
from PIL import Image
from safetensors.torch import save_file

from deproj.clip.encoder import TextEncoder
from deproj.clip.pictures import fingerprint
from deproj.demo.settings import ROWS, Settings
from deproj.demo.words import EXAMPLES
from deproj.draw.sheets import TRUE_STATES
from deproj.draw.stamp import Stamp
from deproj.model.base import Deprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

gr = pytest.importorskip("gradio", reason="the extra demo is not installed")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START = Settings.start(EXAMPLES[0], "a", 3.0)
MODELS = ("a", "b")


def rows(*prompts: str) -> tuple[str, ...]:
    return tuple([*prompts, *[""] * ROWS][:ROWS])


@pytest.fixture(scope="module")
def pipe() -> DeprojectorPipeline:
    return DeprojectorPipeline.from_pretrained("pixel", "all-batch", device="cpu")


# --- Links ----------------------------------------------------------------------------------------


def test_a_link_gives_its_settings_back():
    settings = Settings(
        rows("cat & maid", "red hair:1.2", "#?"), (1.0, -0.5, 2.0, 1.0), 0.3, "1boy", 0.25, True, "cat", ("b",), 7, 3, 0.5, 4.5
    )
    assert Settings.of_query(settings.query(START), START, MODELS) == settings
    assert Settings.of_values(settings.values, MODELS) == settings


def test_a_link_has_no_empty_parts():
    assert START.query(START) == "prompt=cat%2C+maid"
    gaps = replace(START, prompts=rows("cat", "", "maid"), weights=(1.0, 0.5, 2.0, 1.0))
    assert gaps.query(START) == "prompt=cat&prompt=maid&weight=1&weight=2"
    assert replace(START, prompts=rows()).query(START) == "prompt=", "not the first example"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "weight=1",
        "weight=x&seed=1.5&guidance=x",
        "seed=-1&count=0",
        "count=99&strength=x",
        f"{'weight=1&' * 5}seed=99999999999999999999&guidance=3",
        "model=../../etc/passwd",
        "guidance=nan&strength=nan&share=nan",
    ],
)
def test_a_bad_link_is_the_start(query: str):
    assert Settings.of_query(query, START, MODELS) == START


def test_what_is_good_of_a_link_is_taken():
    taken = Settings.of_query("prompt=cat&seed=7&guidance=x&weight=1", START, MODELS)
    assert taken == replace(START, prompts=rows("cat"), seed=7)
    assert Settings.of_query("guidance=inf&seed=-1", START, MODELS) == replace(START, guidance=15.0)


# --- Drawing --------------------------------------------------------------------------------------


def drawn(pipes: dict[str, DeprojectorPipeline], folder: Path, picture: Image.Image | None = None, **changed: Any) -> Any:
    from deproj.demo.drawing import draw

    settings = replace(START, models=tuple(pipes), **changed)
    return draw(pipes, settings, START, picture, folder)


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), int)


def test_a_picture_is_embedded_in_each_models_own_way(encoder: TextEncoder, photo: Image.Image, tmp_path: Path):
    bare = Deprojector.from_pretrained("all-batch", encoder)
    bare.distance = None  # as a converted one
    first = DeprojectorPipeline.from_pretrained("pixel", bare)
    pipes = {"bare": first, "all": first.with_model(Deprojector.from_pretrained("all-batch", first.encoder))}
    both = drawn(pipes, tmp_path, photo, prompts=rows()).files
    alone = drawn({"all": pipes["all"]}, tmp_path, photo, prompts=rows()).files
    assert set(both) == {"bare", "all"}, "no true states"
    bare_picture, own, expected = (pixels(one[0]) for one in (both["bare"], both["all"], alone["all"]))
    assert np.abs(own - expected).max() <= 2
    assert np.abs(own - bare_picture).max() > 20


def test_pictures_are_as_many_as_asked_and_say_what_made_them(pipe: DeprojectorPipeline, tmp_path: Path):
    found = drawn({"a": pipe}, tmp_path, prompts=rows("cat", "maid"), count=2, seed=5, negative="red hair")
    assert {name: len(files) for name, files in found.files.items()} == {TRUE_STATES: 2, "a": 2}
    for name, strength in ((TRUE_STATES, 0.0), ("a", 1.0)):
        stamps = [Stamp.of(path) for path in found.files[name]]
        assert [stamp.seed for stamp in stamps] == [5, 6]
        assert {(one.prompt, one.negative, one.strength, one.model) for one in stamps} == {
            ("cat, maid", "red hair", strength, "a")
        }
    again = drawn({"a": pipe}, tmp_path, prompts=rows("cat", "maid"), count=1, seed=6, negative="red hair")
    assert np.abs(pixels(again.files["a"][0]) - pixels(found.files["a"][1])).max() <= 1


def test_a_strip_goes_the_whole_way(pipe: DeprojectorPipeline, tmp_path: Path):
    found = drawn({"a": pipe}, tmp_path, strip=True, prompts=rows("cat"), to="1boy, black hair")
    ends = [drawn({"a": pipe}, tmp_path, prompts=rows(prompt)).files["a"][0] for prompt in ("cat", "1boy, black hair")]
    assert len(found.files["a"]) == 6
    for files in found.files.values():
        assert [Stamp.of(path).share for path in files] == [0, 0.2, 0.4, 0.6, 0.8, 1], "each says its own place on the way"
    (alone,) = drawn({"a": pipe}, tmp_path, prompts=rows("cat"), to="  ").files["a"]
    assert Stamp.of(alone).to is None
    for there, end in ((found.files["a"][0], ends[0]), (found.files["a"][-1], ends[1])):
        assert np.abs(pixels(there) - pixels(end)).max() <= 2
    with pytest.raises(UserError, match="type the prompt at the end"):
        drawn({"a": pipe}, tmp_path, strip=True)


def test_strength_blends(pipe: DeprojectorPipeline, tmp_path: Path):
    none = drawn({"a": pipe}, tmp_path, prompts=rows("cat maid"), strength=0.0).files
    assert np.abs(pixels(none["a"][0]) - pixels(none[TRUE_STATES][0])).max() <= 2
    with pytest.raises(UserError, match="strength below 1 needs true states"):
        drawn({"a": pipe}, tmp_path, prompts=rows("cat:1.2"), strength=0.5)


def test_a_name_in_a_prompt_means_the_picture(pipe: DeprojectorPipeline, photo: Image.Image, tmp_path: Path):
    called = drawn({"a": pipe}, tmp_path, photo, prompts=rows("<photo>, red hair")).files["a"][0]
    added = drawn({"a": pipe}, tmp_path, photo, prompts=rows("red hair")).files["a"][0]
    assert np.abs(pixels(called) - pixels(added)).max() <= 2
    assert Stamp.of(called).prompt == "<picture>, red hair"
    for path in (called, added):
        assert Stamp.of(path).pictures == {"picture": fingerprint(photo)}, "generate --again asks for the same"
    with pytest.raises(UserError, match="<photo> stands for a picture: drop one in"):
        drawn({"a": pipe}, tmp_path, prompts=rows("<photo>, red hair"))


def test_a_word_of_a_textual_inversion_is_no_picture(photo: Image.Image, tmp_path: Path):
    pipe = DeprojectorPipeline.from_pretrained("pixel", "all-batch")
    save_file({"emb_params": torch.zeros(1, pipe.encoder.width)}, tmp_path / "glow.safetensors")
    pipe.load_textual_inversion(tmp_path / "glow.safetensors", token="<glow>")
    found = drawn({"a": pipe}, tmp_path, prompts=rows("<glow>, cat")).files
    assert set(found) == {TRUE_STATES, "a"}
    assert Stamp.of(found["a"][0]).pictures == {}
    (called,) = drawn({"a": pipe}, tmp_path, photo, prompts=rows("<glow>, <photo>")).files["a"]
    assert Stamp.of(called).pictures == {"picture": fingerprint(photo)}


def test_the_page_shows_how_marks_are_written_here_and_which_words_are_strange(pipe: DeprojectorPipeline, tmp_path: Path):
    said = "\n".join(drawn({"a": pipe}, tmp_path, prompts=rows("((cat)), spaceship")).said)
    assert "((cat)) is a mark of other programs; here, write cat:1.21." in said
    assert "never seen 'spaceship'" in said


def test_a_transparent_picture_of_the_page_stands_on_white():
    from deproj.demo.drawing import expression_of

    ((_, atom),) = expression_of(replace(START, prompts=rows()), Image.new("RGBA", (4, 4), (255, 0, 0, 0))).terms
    assert np.asarray(atom.image).min() == 255  # type: ignore[union-attr]


def test_rows_are_weighed_and_summed():
    from deproj.demo.drawing import expression_of

    photo = Image.new("RGB", (4, 4))
    settings = replace(
        START, prompts=rows("cat, maid", "red hair", "", "1boy"), weights=(0.5, -1.0, 1.0, 0.0), picture_weight=2.0
    )
    assert str(expression_of(settings, photo)) == "cat:0.5, maid:0.5, -red hair, <picture>:2.0"
    with pytest.raises(UserError, match="nothing to draw yet"):
        expression_of(replace(settings, prompts=rows()), None)


def test_a_downloaded_picture_restores_its_settings(pipe: DeprojectorPipeline, tmp_path: Path):
    from deproj.demo.page import Page

    page = Page({"a": pipe}, tmp_path)
    settings = replace(page.start, prompts=rows("1girl", "red hair"), seed=9, count=2, negative="cat")
    (entry,) = page.drawn([], None, *settings.values)[-2]
    back = page.restored(entry.path)
    assert back[:-3] == [None, *settings.values]
    assert [getattr(section, "open", None) for section in back[-3:]] == [True, None, None], "what is set can be seen"
    Image.new("RGB", (8, 8)).save(tmp_path / "none.png")
    with pytest.raises(gr.Error, match="This file doesn't say what it was made of"):
        page.restored(str(tmp_path / "none.png"))
    with pytest.raises(gr.Error, match="goes under “a picture”"):
        page.restored(str(tmp_path / "none.png"))
    page.takes_pictures = False
    Image.new("1", (20_000, 20_000)).save(tmp_path / "huge.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "none.png").read_bytes()[:40])
    for name, said in (("none", "was changed since."), ("huge", "it smaller."), ("cut", "cannot be read as a picture: ")):
        with pytest.raises(gr.Error, match=f"This file .*{said}") as refused:
            page.restored(str(tmp_path / f"{name}.png"))
        assert "A photo" not in str(refused.value)


def test_a_mistake_says_in_which_field_and_wipes_nothing(pipe: DeprojectorPipeline, tmp_path: Path):
    from deproj.demo.page import Page

    page = Page({"a": pipe}, tmp_path)
    (tmp_path / "fake.png").write_text("no picture", encoding="utf-8")

    def problem(photo: str | None = None, **changed: Any) -> str:
        values = replace(page.start, **changed).values
        return str(page.drawn([], photo, *values)[0])

    assert problem(to="(dog").startswith('<p role="alert">the prompt at the end: ')
    assert "what to avoid: this bracket" in problem(negative="(")
    assert "prompt 3: this bracket" in problem(prompts=rows("cat", "", "(dog"))
    assert problem(prompts=rows("(dog")).startswith('<p role="alert">this bracket')
    assert "a picture: the file cannot be read as a picture" in problem(str(tmp_path / "fake.png"))
    for seed in (-5, 1.5, 10**20):
        assert "seed is a whole number from 0" in problem(seed=seed)
    assert "<img" not in problem(prompts=rows('"<img src=x>" ('))
    said = page.drawn([], None, *replace(page.start, prompts=rows('"![x](http://192.0.2.1/a.png)"')).values)[5]
    assert "<p" in said
    assert "<img" not in said


def test_the_page_writes_nothing_beside_its_code():
    """Gradio writes a stub beside every module that has a component of its own."""
    import deproj.demo.page

    assert not list(Path(deproj.demo.page.__file__).parent.glob("*.pyi"))


def test_the_history_brings_a_picture_back(pipe: DeprojectorPipeline, photo: Image.Image, tmp_path: Path):
    from deproj.demo.page import Page

    page = Page({"a": pipe}, tmp_path)
    photo.save(tmp_path / "photo.png")
    history = page.drawn([], None, *page.start.values)[-2]
    history = page.drawn(history, str(tmp_path / "photo.png"), *page.start.values)[-2]
    assert [entry.photo for entry in history] == [str(tmp_path / "photo.png"), None]
    assert page.recalled(history, SimpleNamespace(index=0))[0] == str(tmp_path / "photo.png")
    assert page.recalled(history, SimpleNamespace(index=1))[0] is None


def test_settings_in_a_line():
    settings = replace(START, prompts=rows("cat", "", "red hair"), seed=7, strength=0.5, to="1boy", strip=True)
    assert settings.brief(START) == "cat + red hair, to 1boy, the whole way, seed 7, strength 0.5"
    assert replace(START, prompts=rows()).brief(START) == "the picture"
    weighed = replace(START, prompts=rows("cat", "maid", "red hair"), weights=(1.0, -1.0, 0.0, 1.0), negative="x")
    assert weighed.brief(START) == "cat + maid × -1, negative x"
    assert replace(START, prompts=rows("cat")).brief(weighed) == "cat, no negative"


def test_a_picture_drawn_with_another_says_that_it_lacks_it(
    pipe: DeprojectorPipeline, photo: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import gradio as gr

    from deproj.demo.page import WITHOUT, Page

    warned: list[str] = []
    monkeypatch.setattr(gr, "Warning", lambda said, **_: warned.append(said))
    page = Page({"a": pipe}, tmp_path)
    for given in (None, photo):
        (path,) = drawn({"a": pipe}, tmp_path, given, prompts=rows("cat, maid")).files["a"]
        assert page.restored(str(path))[1] == "cat, maid"
    assert warned == [f"{WITHOUT}: drop that in too, under “a picture”."]


def test_a_picture_of_another_program_says_what_it_shows(pipe: DeprojectorPipeline, tmp_path: Path):
    import gradio as gr
    from PIL.PngImagePlugin import PngInfo

    from deproj.demo.page import Page

    notes = PngInfo()
    notes.add_text("parameters", "a dog\nNegative prompt: cat\nSteps: 20")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=notes)
    with pytest.raises(gr.Error, match=r"This file says .* as A1111.*, not as deproj does; its prompt: “a dog”"):
        Page({"a": pipe}, tmp_path).restored(str(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("prompt", "longer"),
    [
        ("", "maid"),
        ("cat", "cat, maid"),
        ("cat, ", "cat, maid"),
        ("cat | 1boy @ 0.4", "maid, cat | 1boy @ 0.4"),
        ("(cat", "(cat, maid"),
    ],
)
def test_a_word_is_added_where_it_can_stand(prompt: str, longer: str):
    from deproj.demo.page import added

    assert added(prompt, ["maid"]) == longer


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "nothing is no deprojector"),
        (["--port", "0"], "--port is 1 to 65535; got 0"),
        (["--sd", "nowhere"], "nowhere"),
        (["--root-path", "deproj"], "--root-path begins with /; got 'deproj'"),
    ],
)
def test_mistakes(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from deproj.demo.__main__ import main

    ended = call(main, arguments, monkeypatch, capsys)
    assert ended.code == 1
    assert said in ended.err


#: Drops the first picture on the page's heading.
DROP = """async () => {
    const answer = await fetch(document.querySelector(".picture img").src), dropped = new DataTransfer();
    dropped.items.add(new File([await answer.blob()], "a.png", { type: "image/png" }));
    const about = { dataTransfer: dropped, bubbles: true, cancelable: true };
    document.querySelector("h1").dispatchEvent(new DragEvent("drop", about));
}"""


@contextmanager
def served(folder: Path, *options: str) -> Iterator[str]:
    """The address of the page, served by the command itself."""
    log = folder / "said"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w", encoding="utf-8") as said:
        command = [sys.executable, "-u", "-m", "deproj.demo", "--port", str(port), *options]
        process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            if found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text(encoding="utf-8")):
                break
            assert process.poll() is None, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        else:
            raise AssertionError(log.read_text(encoding="utf-8"))
        yield found.group()
    finally:
        process.terminate()
        process.wait()


@contextmanager
def behind(address: str, prefix: str) -> Iterator[str]:
    """The address of a server that passes what is asked for under a prefix on to another, as nginx does."""
    import httpx
    import uvicorn
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import StreamingResponse
    from starlette.routing import Route

    async def forward(request: Request) -> StreamingResponse:
        client = httpx.AsyncClient(timeout=None, trust_env=False)
        url = httpx.URL(address + request.url.path.removeprefix(prefix), query=request.url.query.encode())
        asked = client.build_request(request.method, url, headers=request.headers.raw, content=await request.body())
        answer = await client.send(asked, stream=True)
        body = StreamingResponse(answer.aiter_raw(), answer.status_code, background=BackgroundTask(client.aclose))
        body.raw_headers = answer.headers.raw
        return body

    with socket.create_server(("127.0.0.1", 0)) as listening:
        app = Starlette(routes=[Route(prefix + "/{path:path}", forward, methods=["GET", "POST", "HEAD"])])
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
        thread = Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}{prefix}/"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The page itself, or behind another server, under the prefix that the parameter names."""
    if not request.param:
        with served(tmp_path) as itself:
            yield itself
        return
    with served(tmp_path, "--root-path", request.param) as itself, behind(itself, request.param) as outside:
        yield outside


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "height", "address"), [(1280, 1100, ""), (390, 844, "/deproj")], indirect=["address"])
def test_the_page_in_a_browser(width: int, height: int, address: str, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(180_000)  # a machine may have other work
        page.goto(address)

        def changes(act: Any) -> None:
            """Waits until other pictures are shown than before."""
            before = page.locator(".picture img").first.get_attribute("src")
            act()
            page.wait_for_function("before => document.querySelector('.picture img')?.src != before", arg=before)
            page.wait_for_function("!document.querySelector('.picture .pending, .picture .generating')")

        page.wait_for_function("document.querySelectorAll('.picture img').length >= 2")
        icon = page.evaluate("document.querySelector('link[rel=icon]')?.href")
        assert icon == f"{address.removesuffix('/')}/favicon.ico", "under the prefix"
        assert page.request.get(icon).ok
        prompt = page.get_by_label("prompt", exact=True)

        def typed(text: str) -> None:
            prompt.fill(text)
            prompt.press("Enter")

        changes(lambda: typed("1girl, red hair"))
        page.wait_for_function("document.querySelector('.link textarea, .link input')?.value.includes('1girl')")
        link = page.locator(".link").locator("textarea, input").input_value()
        assert link.startswith(f"{address.removesuffix('/')}/?prompt=1girl")
        assert "weight" not in link
        changes(lambda: page.get_by_role("button", name="🎲 another").click())
        strength = page.get_by_label("number input for strength")
        strength.fill("0.5")
        changes(lambda: strength.press("Enter"))
        page.wait_for_function("location.search.includes('strength=0.5')")
        strength.fill("1")
        changes(lambda: strength.press("Enter"))
        slider = page.locator("input[type=range][aria-label='range slider for guidance']")
        slider.focus()
        changes(lambda: slider.press("ArrowRight"))
        page.wait_for_function("location.search.includes('guidance=3.5')")
        changes(lambda: slider.press("ArrowLeft"))
        page.get_by_text("words that this world knows").click()
        changes(lambda: page.get_by_text("in forest", exact=True).click())
        assert prompt.input_value() == "1girl, red hair, in forest"
        page.screenshot(path=tmp_path / f"page-{width}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out on the right"

        typed("(cat")
        problem = page.get_by_text("this bracket is not closed")
        problem.wait_for()
        assert page.locator(".picture.stale img").count() >= 2, "the old pictures are greyed"
        box = problem.bounding_box()
        assert box is not None
        assert box["y"] + box["height"] < page.evaluate("scrollY + innerHeight"), "where one looks"
        changes(lambda: page.get_by_text(EXAMPLES[1], exact=True).click())
        assert prompt.input_value() == EXAMPLES[1]
        assert page.locator(".picture.stale").count() == 0
        prompt.fill("1girl, in forest")
        prompt.press("Enter")
        page.wait_for_timeout(200)
        typed("1boy, in forest")
        # what was asked for while something was drawn is drawn after it, and is there when the page is loaded again
        page.wait_for_function("location.search == '?prompt=1boy%2C+in+forest'")
        page.get_by_text("from one prompt to another").click()
        end = page.get_by_label("the prompt at the end")
        end.fill("(dog")
        end.press("Enter")
        page.wait_for_function(
            "document.querySelector('#problem p')?.textContent.startsWith('the prompt at the end: this bracket')"
        )
        page.wait_for_timeout(500)
        box = page.locator("#problem").bounding_box()
        assert box is not None
        assert 0 <= box["y"] < page.evaluate("innerHeight"), "in sight, however far down one is"
        page.evaluate(DROP)
        page.wait_for_function("document.querySelector('#prompt textarea, #prompt input').value == '1boy, in forest'")
        page.wait_for_function("document.querySelectorAll('#problem p').length == 0")
        assert page.locator("#history .caption-label").nth(0).inner_text() == "1boy, in forest"
        page.locator("#history img").nth(4).click()
        page.wait_for_function("document.querySelector('#prompt textarea, #prompt input').value == '1girl, red hair'")
        page.goto(link)
        page.wait_for_function("document.querySelector('#prompt textarea, #prompt input')?.value == '1girl, red hair'")
        browser.close()
