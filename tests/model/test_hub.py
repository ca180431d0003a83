"""Models by name, their cards, and the Hub: pushed to and loaded from an endpoint on this machine, by a real second process."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Ended, call
from huggingface_hub import ModelCard
from PIL import Image

from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.pixel import WEIGHTS, shipped
from deproj.process.errors import UserError

Train = Callable[..., Ended]
SHA = "a" * 40


class Hub(ThreadingHTTPServer):
    """As much of the Hub as making, filling and reading one repository takes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.seen: list[tuple[str, str, str | None]] = []
        self.made: list[dict[str, Any]] = []
        self.messages: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, content: Any = None, code: int = 200, headers: dict[str, str] | None = None, body: bool = True) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_POST(self) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        hub.seen.append(("POST", path, self.headers.get("Authorization")))
        if self.headers.get("Authorization") != "Bearer hf_right":
            self.answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            hub.made.append(json.loads(data))
            self.answer({"url": f"{hub.address}/someone/small", "id": "1", "name": "someone/small"})
        elif path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(data)["files"]
            self.answer({"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]})
        elif "/commit/" in path:
            for line in map(json.loads, data.splitlines()):
                if line["key"] == "file":
                    hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "header":
                    hub.messages.append(line["value"]["summary"])
            url = f"{hub.address}/someone/small/commit/{SHA}"
            self.answer({"success": True, "commitOid": SHA, "commitUrl": url, "hookOutput": ""})
        else:
            self.answer({"error": f"no {path} here"}, 404)

    def do_GET(self, body: bool = True) -> None:
        hub, path = self.server, self.path.partition("?")[0]
        hub.seen.append((self.command, path, self.headers.get("Authorization")))
        name = "/".join(path.partition("/resolve/")[2].split("/")[1:])
        etag = hashlib.sha1(hub.files.get(name, b"")).hexdigest()
        if path.startswith("/api/models/someone/small/tree/"):
            tree = [{"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for p, c in hub.files.items()]
            self.answer(tree)
        elif path.startswith("/api/models/someone/small"):
            self.answer({"id": "someone/small", "sha": SHA, "siblings": [{"rfilename": name} for name in hub.files]})
        elif path.startswith("/someone/small/resolve/") and name in hub.files:
            self.answer(hub.files[name], headers={"X-Repo-Commit": SHA, "ETag": f'"{etag}"'}, body=body)
        elif path.startswith("/someone/small/resolve/"):
            self.answer({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": SHA}, body)
        else:
            self.answer({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"}, body)

    def do_HEAD(self) -> None:
        self.do_GET(body=False)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def python(code: str, folder: Path, endpoint: str, **environment: str) -> Ended:
    """Runs code in a process of its own that takes `endpoint` for the Hub."""
    names = {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder / "home"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    env = {k: v for k, v in os.environ.items() if not k.startswith("HF_")} | names | environment
    env["PYTHONPATH"] = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, encoding="utf-8", timeout=200)
    return Ended(done.returncode, done.stdout, done.stderr)


PUSH = """
from deproj.process.errors import UserError
from deproj.model.base import Deprojector
try:
    print(Deprojector.from_pretrained("m").push_to_hub("someone/small", commit_message="First", private=True))
except UserError as error:
    print("refused:", error)
"""
LOAD = """
from deproj.process.errors import UserError
from deproj.model.base import Deprojector
for name in ("someone/small", "someone/else"):
    try:
        Deprojector.from_pretrained(name).save_pretrained("again")
        print("loaded")
    except UserError as error:
        print("refused:", error)
"""


def test_pushed_and_loaded_back(tmp_path: Path, hub: Hub):
    model = LSTMDeprojector(LSTMConfig(6, 9), provenance={"feed": {"name": "batch"}})
    model.sheet = b"picture"
    model.save_pretrained(tmp_path / "m")
    ended = python(PUSH, tmp_path, hub.address, HF_TOKEN="hf_wrong")
    assert ended.out.startswith("refused: someone/small could not be pushed"), ended
    assert not hub.files
    ended = python(PUSH, tmp_path, hub.address, HF_TOKEN="hf_right")
    assert ended.out.strip() == f"{hub.address}/someone/small/commit/{SHA}", ended
    assert sorted(hub.files) == ["README.md", "config.json", "model.safetensors", "sheet.png"]
    assert hub.made[-1]["name"] == "small"
    assert hub.made[-1]["organization"] == "someone"
    assert hub.messages == ["First"]
    assert b'from_pretrained("someone/small")' in hub.files["README.md"]

    ended = python(LOAD, tmp_path, hub.address)
    loaded, refused = ended.out.strip().splitlines()
    assert loaded == "loaded", ended
    assert refused.startswith("refused: no folder someone/else, and no such model from the Hub")
    for name in ("config.json", "model.safetensors", "sheet.png"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "m" / name).read_bytes()
    hub.files.clear()
    again = python(LOAD, tmp_path, "http://127.0.0.1:9").out.splitlines()  # nobody listens there
    assert again[0] == "loaded", "what was downloaded is kept"
    assert again[1].startswith("refused: no folder someone/else")


PIPELINE = """
import torch
from deproj.clip.encoder import TextEncoder
from deproj.process.errors import UserError
from deproj.pipeline import DeprojectorPipeline
for name in ("someone/small", "someone/else"):
    try:
        pipe = DeprojectorPipeline.from_pretrained(name, "all-batch", clip="pixel")
        pipe("cat", num_inference_steps=2, guidance_scale=3, generator=torch.Generator().manual_seed(0)).images[0].save("cat.png")
    except UserError as error:
        print("refused:", error)
try:
    TextEncoder.from_pretrained("pixel", "someone/else")
except UserError as error:
    print("refused:", error)
"""


def test_a_pipeline_by_its_hub_id(tmp_path: Path, hub: Hub):
    world = {p.relative_to(WEIGHTS).as_posix(): p for p in WEIGHTS.rglob("*") if p.is_file()}
    parts = ("tokenizer", "text_encoder", "unet", "vae", "scheduler", "model_index.json")
    hub.files |= {name: path.read_bytes() for name, path in world.items() if name.split("/")[0] in parts}
    refused = python(PIPELINE, tmp_path, hub.address).out.splitlines()
    assert [line.startswith("refused: no folder someone/else, and no such model") for line in refused] == [True, True]
    ours = DeprojectorPipeline.from_pretrained("pixel", "all-batch")
    picture = ours("cat", num_inference_steps=2, guidance_scale=3, generator=torch.Generator().manual_seed(0)).images[0]
    off = np.abs(np.asarray(Image.open(tmp_path / "cat.png")).astype(int) - np.asarray(picture))
    assert off.max() <= 2, "the processes may differ in threads, so in rounding"

    (tmp_path / "no_network").mkdir()
    alone = python(PIPELINE, tmp_path / "no_network", "http://127.0.0.1:9")  # nobody listens there
    assert len(alone.out.splitlines()) == 3
    assert "Retrying" not in alone.err, "minutes of it, for each part of a pipeline"


HALF = """
from deproj.clip.encoder import TextEncoder
from deproj.draw.stable_diffusion import StableDiffusion
sd = StableDiffusion.named("someone/small")
encoder = sd.encoder("cpu")
print(encoder.hash, sd.renderer(encoder, "cpu")(encoder(["cat"]).states, [0]).shape)
"""


def test_a_pipeline_on_the_hub_with_half_precision_alone(tmp_path: Path, hub: Hub, encoder: TextEncoder):
    """Whose weights go by other names; also once the Hub is out of reach."""
    parts = ("tokenizer", "text_encoder", "unet", "vae", "scheduler", "model_index.json")
    for path in (path for path in WEIGHTS.rglob("*") if path.is_file()):
        name = path.relative_to(WEIGHTS).as_posix()
        if name.split("/")[0] in parts:
            hub.files[name.replace(".safetensors", ".fp16.safetensors")] = path.read_bytes()
    for address in (hub.address, "http://127.0.0.1:9"):
        ended = python(HALF, tmp_path, address)
        assert ended.out.strip() == f"{encoder.hash} torch.Size([1, 32, 32, 3])", ended


def test_a_runs_card_tells_what_it_is(train: Train, tmp_path: Path, encoder: TextEncoder, monkeypatch, capsys):
    from deproj.evaluate import main

    assert train("sd.steps=2", "render=1", "evaluate=2", "hydra.run.dir=run", "optimizer.learning_rate=0.002").code == 0
    folder = tmp_path / "run" / "deprojector"
    assert Image.open(folder / "sheet.png").size == Image.open(tmp_path / "run" / "sheets" / "best.png").size

    def checked() -> ModelCard:
        card = ModelCard.load(folder / "README.md")
        numbers = json.loads((tmp_path / "run" / "evaluation.json").read_text(encoding="utf-8"))
        entry = numbers["composed"]["conditioning_error"]
        assert f"{entry['value']:.3f} ({entry['low']:.3f}, {entry['high']:.3f})" in card.text
        found = {(r.dataset_config, r.metric_type): r.metric_value for r in card.data.eval_results}
        assert found["composed", "conditioning_error"] == entry["value"]
        return card

    card = checked()
    assert card.data.library_name == "deproj"
    assert card.data.pipeline_tag == "text-to-image"
    assert "python -m deproj.train selection=eos_onward feed=recursive" in card.text
    assert "optimizer.learning_rate=0.002" in card.text
    assert "(sheet.png)" in card.text
    assert str(tmp_path) not in card.content
    assert call(main, ["run", "--count", "3"], monkeypatch, capsys).code == 0
    assert "3 single and 3 composed" in checked().text
    for source in ("run", "run/deprojector"):
        model = Deprojector.from_pretrained(source, encoder)
    model.save_pretrained("elsewhere")
    assert (tmp_path / "elsewhere" / "sheet.png").read_bytes() == (folder / "sheet.png").read_bytes()
    assert "3 single and 3 composed" in (tmp_path / "elsewhere" / "README.md").read_text(encoding="utf-8")


def test_a_card_without_numbers(tmp_path: Path):
    LSTMDeprojector(LSTMConfig(6, 9)).save_pretrained(tmp_path / "m")
    card = ModelCard.load(tmp_path / "m" / "README.md")
    assert "Not evaluated" in card.text
    assert card.data.eval_results is None
    assert "sheet.png" not in card.text


@pytest.mark.parametrize("name", ["all-batch", "eos_onward-batch", "eos_onward-recursive"])
def test_shipped_models(name: str, encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    model = Deprojector.from_pretrained(name, encoder)
    selection, feed = name.split("-")
    assert model.provenance["selection"]["name"] == selection
    assert model.provenance["feed"]["name"] == feed
    evaluation = model.provenance["results"]["evaluation"]
    assert evaluation["single"]["fidelity"]["n"] >= 190
    assert evaluation["single"]["fidelity"]["value"] > 0.75
    true, order = encoder(["cat maid"]), model.selection
    assert order is not None
    likeness = torch.cosine_similarity(model.generate(true.embedding), order(true.length).arrange(true.states), dim=2)
    assert likeness.mean() > 0.94, "it is the model that it says it is"
    assert name in shipped()


def test_short_names_start_runs_and_folders_come_first(train: Train, tmp_path: Path):
    assert train("init_from=eos_onward-recursive", "hydra.run.dir=run").code == 0
    LSTMDeprojector(LSTMConfig(6, 9)).save_pretrained(tmp_path / "all-batch")
    assert Deprojector.from_pretrained("all-batch").config.width == 6
    ended = train("init_from=all-batches", "hydra.run.dir=other")
    assert ended.code == 1
    assert "all-batches is no deprojector" in ended.err
    assert "eos_onward-batch" in ended.err


@pytest.mark.parametrize("source", ["/nowhere/at/all", "a/b/c", "../nowhere", ".."])
def test_refuses_what_is_no_model(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="is no deprojector"):
        Deprojector.from_pretrained(source)
