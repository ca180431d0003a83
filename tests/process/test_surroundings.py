"""What surrounds a command: proxies, terminals and locales of ASCII, addresses of IPv6. Each is right, or told in a line."""

from __future__ import annotations

import os
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from deproj.__main__ import COMMANDS
from deproj.demo.__main__ import serve
from deproj.process.errors import UserError
from deproj.process.letters import typed_text
from deproj.process.network import proxy, without_proxies

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii", "TERM": "dumb"}
PROXIED = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
ASK = """
from pathlib import Path
from deproj.process.errors import UserError
from deproj.process.hub import names_of, reach, upload
assert names_of("some/one") == ()
for ask in (lambda: reach("some/one", "config.json", "CLIP"), lambda: upload(Path("."), ["x"], "some/one", "m", None, None)):
    try:
        ask()
    except UserError as error:
        print(error)
from deproj.clip.encoder import TextEncoder
print(TextEncoder.from_pretrained("pixel", "pixel").width)
"""


def without(names: tuple[str, ...]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper() not in names}


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTPS_PROXY", "http://127.0.0.1:9"),
        ("https_proxy", "ftp://127.0.0.1"),
    ],
)
def test_a_proxy_that_is_not_there(name: str, address: str, tmp_path: Path):
    """The Hub is asked through it, in a line; what ships asks nobody."""
    environment = without(PROXIED) | {name: address, "HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://hub.invalid"}
    if name == "HTTPS_PROXY":
        environment["HF_ENDPOINT"] = "https://hub.invalid"
    done = subprocess.run([sys.executable, "-c", ASK], env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    first, second, width = done.stdout.splitlines()
    assert first.startswith("no folder some/one, and no such model from the Hub: ")
    assert second.startswith("some/one could not be pushed: ")
    assert int(width) > 0
    if name != "https_proxy":
        assert f"(It was asked through the proxy of {name}.)" in first
    assert "Retrying" not in done.stderr, "minutes of it"


def test_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch):
    import httpx

    for name in (*PROXIED, *map(str.lower, PROXIED)):
        monkeypatch.delenv(name, raising=False)
    assert proxy() is None
    monkeypatch.setenv("all_proxy", "socks5://user:secret@127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "example.org")
    assert proxy() == "ALL_PROXY"
    with without_proxies():
        httpx.Client().close()  # needs a package for that proxy otherwise
        assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "*"
    assert os.environ["NO_PROXY"] == "example.org"
    assert "no_proxy" not in os.environ


@pytest.mark.parametrize(("host", "named"), [("::1", "[::1]"), ("127.0.0.1", "127.0.0.1"), ("::", "[::]")])
def test_the_page_is_served_at_any_address(host: str, named: str):
    said: list[str] = []
    page = SimpleNamespace(launch=lambda server_name, **_: said.append(server_name))
    serve(page, Namespace(host=host, port=7860, root_path=None))  # type: ignore[arg-type]
    assert said == [named]


def test_a_host_that_is_none_is_told():
    with pytest.raises(UserError, match=r"cannot serve at nowhere\.invalid:7860: .* name another with --host or --port"):
        serve(SimpleNamespace(launch=lambda **_: None), Namespace(host="nowhere.invalid", port=7860, root_path=None))  # type: ignore[arg-type]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_in_ascii(command: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-m", "deproj", command, "--help"],
        cwd=tmp_path,
        env=os.environ | ASCII,
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()


@pytest.mark.skipif(sys.platform != "linux", reason="Python decodes a command line by the locale")
def test_prompts_of_all_scripts_on_an_ascii_terminal(tmp_path: Path):
    (tmp_path / "gemalt 猫.txt").write_text("naïve 猫\n", encoding="utf-8")
    arguments = ["all-batch", "naïve cat、maid", "--negative", "猫", "--file", "gemalt 猫.txt", "--sampler-steps", "1"]
    command = [sys.executable, "-m", "deproj.generate", *arguments, "--out", "Bilder 猫"]
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | ASCII, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "Bilder 猫").iterdir()) == ["001-na-ve-cat-maid.png", "002-na-ve.png"]
    done = subprocess.run([*command[:4], b"cat \xff"], cwd=tmp_path, env=os.environ | ASCII, capture_output=True, timeout=120)
    assert done.returncode == 1
    assert b"the byte 0xff, which is no UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_what_was_typed_is_decoded_once():
    assert typed_text("猫") == "猫"
    assert typed_text("猫".encode().decode("ascii", "surrogateescape")) == "猫"
    assert typed_text("cat \udcff") == "cat \udcff"
    assert typed_text("cat \ud83d") == "cat \ud83d"
