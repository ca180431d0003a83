"""The page in a real browser, and what its links hold."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import call
from PIL import Image

from deproj.clip.encoder import TextEncoder
from deproj.demo import EXAMPLES, ROWS, Settings, draw, expression_of_page
from deproj.model.base import Deprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.pixel import scenes
from deproj.process.errors import UserError

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
START = Settings((EXAMPLES[0], "", "", ""), (1.0,) * (ROWS + 1), ("a", "b"), 0, 3.0)


def test_a_link_gives_its_settings_back():
    settings = Settings(("cat & maid", "red hair:1.2", "", "#?"), (1.0, -0.5, 1.0, 2.0, 0.3), ("b",), 7, 4.5)
    assert Settings.of(settings.query(), START) == settings


@pytest.mark.parametrize(
    "query",
    [
        "",
        "weight=1",
        "weight=x&seed=1.5&guidance=x",
        "seed=-1",
        f"{'weight=1&' * 5}seed=99999999999999999999&guidance=3",
        "model=../../etc/passwd",
        f"guidance=nan&{'weight=nan&' * 5}",
    ],
)
def test_a_bad_link_is_the_start(query: str):
    assert Settings.of(query, START) == START


def test_what_is_good_of_a_link_is_taken():
    assert Settings.of("prompt=cat&seed=7&guidance=x&weight=1", START) == replace(START, prompts=("cat", "", "", ""), seed=7)
    assert Settings.of("guidance=inf&seed=-1", START) == replace(START, guidance=15.0)


def test_a_picture_is_embedded_in_each_models_own_way(encoder: TextEncoder):
    photo = Image.fromarray(scenes.draw(scenes.sample(1, np.random.default_rng(5)))[0])
    bare = Deprojector.from_pretrained("all-batch", encoder)
    bare.distance = None  # as a converted one
    first = DeprojectorPipeline.from_pretrained("pixel", bare)
    pipes = {"bare": first, "all": first.with_model(Deprojector.from_pretrained("all-batch", first.encoder))}
    settings = Settings(("", "", "", ""), (1.0,) * 5, ("bare", "all"), 0, 3.0)
    both, _ = draw(pipes, settings, photo)
    alone, _ = draw({"all": pipes["all"]}, replace(settings, models=("all",)), photo)
    bare_picture, own, expected = (np.asarray(image, int) for image in (both["bare"], both["all"], alone["all"]))
    assert np.abs(own - expected).max() <= 2
    assert np.abs(own - bare_picture).max() > 20


def test_the_page_shows_how_marks_are_written_here():
    pipe = DeprojectorPipeline.from_pretrained("pixel", "all-batch")
    settings = Settings(("((cat))", "", "", ""), (1.0,) * 5, ("all",), 0, 3.0)
    _, said = draw({"all": pipe}, settings, None)
    assert "((cat)) is a mark of other programs; here, write cat:1.21." in said


def test_a_transparent_picture_of_the_page_stands_on_white():
    settings = Settings(("", "", "", ""), (1.0,) * 5, ("a",), 0, 3.0)
    ((_, atom),) = expression_of_page(settings, Image.new("RGBA", (4, 4), (255, 0, 0, 0))).terms
    assert atom.image.getpixel((0, 0)) == (255, 255, 255)


def test_rows_are_weighed_and_summed():
    settings = Settings(("cat, maid", "", "red hair:2", "1boy"), (1.0, 1.0, -0.5, 0.0, 1.0), ("a",), 0, 3.0)
    assert [(weight, atom.text) for weight, atom in expression_of_page(settings, None).terms] == [
        (1.0, "cat"), (1.0, "maid"), (-1.0, "red hair"),
    ]  # fmt: skip
    with pytest.raises(UserError, match="nothing to draw"):
        expression_of_page(Settings(("", "", "", ""), (1.0,) * 5, ("a",), 0, 3.0), None)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--reference", "nowhere"], "nowhere cannot be read"),
        (["--port", "99999"], "--port is 1 to 65535"),
        (["nowhere"], "nowhere is no deprojector"),
        (["--sd", "nowhere"], "nowhere"),
    ],
)
def test_mistakes(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from deproj.demo import main

    ended = call(main, arguments, monkeypatch, capsys)
    assert ended.code == 1
    assert said in ended.err


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, served by the command itself."""
    pytest.importorskip("gradio", reason="the extra demo is not installed")
    log = tmp_path_factory.mktemp("demo") / "said"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with log.open("w", encoding="utf-8") as said:
        command = [sys.executable, "-u", "-m", "deproj.demo", "--port", str(port)]
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


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize(("width", "height"), [(1280, 1100), (390, 844)])
def test_a_prompt_gives_a_new_picture(width: int, height: int, address: str, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": height})
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)

        def pictures() -> list[str]:
            return [image.get_attribute("src") or "" for image in page.locator(".picture img").all()]

        page.wait_for_function("document.querySelectorAll('.picture img').length >= 4", timeout=60_000)
        before = pictures()
        prompt = page.get_by_label("prompt 1")
        prompt.fill("1girl, red hair")
        prompt.press("Enter")
        page.wait_for_function(
            "before => { const now = [...document.querySelectorAll('.picture img')].map(i => i.src);"
            " return now.length == before.length && now.every((src, k) => src != before[k]) }",
            arg=before,
            timeout=60_000,
        )
        page.wait_for_function("document.querySelector('.link textarea, .link input')?.value.includes('1girl')")
        link = page.locator(".link").locator("textarea, input").input_value()
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out on the right"
        page.goto(link)
        page.wait_for_function("document.querySelector('textarea')?.value == '1girl, red hair'", timeout=60_000)
        page.get_by_label("prompt 1").fill("(cat")
        page.get_by_label("prompt 1").press("Enter")
        page.get_by_text("this bracket is not closed").wait_for(timeout=60_000)
        browser.close()
