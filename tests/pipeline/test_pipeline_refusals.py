"""What the pipeline refuses, each in a line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from deproj.clip.encoder import TextEncoder
from deproj.clip.images import ImageEncoder, open_picture
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMDeprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError


def test_refuses_what_it_cannot_draw(pipe: DeprojectorPipeline, photo: Image.Image, tmp_path: Path, encoder: TextEncoder):
    for arguments, said in (
        ({}, "give one of prompt, embedding and image; got 0"),
        ({"prompt": "cat", "image": photo}, "got 2"),
        ({"prompt": []}, "no prompt in the list"),
        ({"prompt": 3}, "got int"),
        ({"prompt": "cat", "strenght": 0.5}, "no option 'strenght'"),
        ({"prompt": "cat", "seed": 3}, "no option 'seed'; generator=torch.Generator"),
        ({"prompt": "cat", "height": 64}, "height and width are given both, or neither"),
        ({"prompt": "<photo>, red hair"}, "none was handed over .pictures={'photo': PICTURE} in Python, --image photo.png"),
        ({"prompt": "(cat"}, "not closed"),
        ({"embedding": torch.zeros(64)}, r"\(128,\) here; got \(64,\)"),
        ({"embedding": torch.zeros(1, 1, 128)}, r"\(D,\) or \(B, D\)"),
        ({"embedding": torch.full((128,), float("nan"))}, "NaN"),
        ({"embedding": "cat"}, "an embedding is a tensor"),
        ({"image": "nowhere.png"}, r"no picture at nowhere\.png"),
        ({"image": [photo, torch.zeros(128)]}, "an image is a PIL picture or the path of one; got Tensor"),
        ({"prompt": Path("nowhere.png")}, r"no picture at nowhere\.png"),
        ({"prompt": "<photo>"}, "no picture is named <photo>"),
        ({"prompt": "<photo>", "pictures": {"photo": "nowhere.png"}}, r"no picture at nowhere\.png"),
        ({"prompt": "<photo>", "pictures": {"photo": 3}}, "<photo> is a PIL picture or the path of one; got int"),
    ):
        with pytest.raises(UserError, match=said):
            pipe(**arguments)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrubbish")
    with pytest.raises(UserError, match="cannot be read as a picture"):
        open_picture(tmp_path / "bad.png")
    with pytest.raises(UserError, match="no picture at"):
        open_picture(tmp_path / "none.png")
    with pytest.raises(UserError, match="hand over some"):
        ImageEncoder(tmp_path, encoder)
    with pytest.raises(UserError, match="no CLIP projection"):
        ImageEncoder("pixel", TextEncoder.from_pretrained("pixel"))


def test_a_model_of_another_width_or_world_is_refused(encoder: TextEncoder, pipe: DeprojectorPipeline, tmp_path: Path):
    from deproj.model.lstm import LSTMConfig

    narrow = LSTMDeprojector(LSTMConfig(64, 96))
    narrow.save_pretrained(tmp_path / "narrow")
    for other in (narrow, tmp_path / "narrow"):
        with pytest.raises(UserError, match="states of width 64, the text encoder 128"):
            DeprojectorPipeline.from_pretrained("pixel", other)
    for name, said in (
        ("nowhere", "is no deprojector"),
        ("/no/where", "is no deprojector"),
        (str(tmp_path), "is no deprojector"),
    ):
        with pytest.raises(UserError, match=said):
            DeprojectorPipeline.from_pretrained("pixel", name)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="training isn't done"):
        DeprojectorPipeline.from_pretrained("pixel", tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "x"}, "size is a whole number of pixels, 0 (as drawn) to 8192; got 'x'"),
        ({"size": 10**9}, "size is a whole number of pixels"),
        ({"size": -1}, "size is a whole number of pixels"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt is a whole number, at least 1; got 0"),
        ({"num_images_per_prompt": "2"}, "num_images_per_prompt is a whole number, at least 1; got '2'"),
        ({"num_inference_steps": 0}, "num_inference_steps is a whole number, at least 1; got 0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps is a whole number, at least 1; got 2.5"),
        ({"guidance_scale": float("nan")}, "guidance_scale is a finite number, up to 1 without guidance; got nan"),
        ({"guidance_scale": "7"}, "guidance_scale is a finite number, up to 1 without guidance; got '7'"),
        ({"generator": 0}, "generator is a torch.Generator"),
        ({"generator": []}, "generator is a torch.Generator"),
        ({"strength": "0.5"}, "strength is 0 to 1; got '0.5'"),
        ({"generator": 3}, "generator is a torch.Generator"),
        ({"generator": [3]}, "generator is a torch.Generator"),
        ({"negative_prompt": 3}, "a prompt is a text, a picture, an embedding (D,) or an expression; got int"),
        ({"pictures": ["x"]}, "pictures are handed over by their names"),
        ({"negative_prompt_embeds": torch.zeros(77, 128)}, "negative_prompt_embeds is a tensor of states, (B, 77, 128); got"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused(pipe: DeprojectorPipeline, options: dict[str, Any], said: str):
    with pytest.raises(UserError, match=re.escape(said)):
        pipe("cat", **options)


def test_states_that_are_none_are_refused(pipe: DeprojectorPipeline):
    for states, got in (([1], "list"), (torch.zeros(3), r"\(3,\)"), (torch.zeros(1, 77, 5), r"\(1, 77, 5\)")):
        with pytest.raises(UserError, match=rf"prompt_embeds is a tensor of states, \(B, 77, 128\); got {got}"):
            pipe(prompt_embeds=states)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_a_device_that_there_is_not_is_told(pipe: DeprojectorPipeline):
    for given in ("cuda", torch.device("cuda"), 0):
        with pytest.raises(UserError, match=r"there is no device 'cuda(:0)?' here"):
            pipe.to(given)
        with pytest.raises(UserError, match=r"there is no device 'cuda(:0)?' here"):
            pipe.to(device=given)
    with pytest.raises(UserError, match="there is no device 'cuda:1' here"):
        DeprojectorPipeline.from_pretrained("best", device="cuda:1")
    with pytest.raises(UserError, match="a device is 'cpu', 'cuda' or 'cuda:0'; got 'gpu'"):
        pipe.to("gpu")


@pytest.mark.parametrize(("named", "got"), [("", "''"), (" ", "' '"), (3, "int"), (None, "NoneType")])
def test_what_names_no_deprojector_is_told(named: Any, got: str):
    with pytest.raises(UserError, match=f"is named by its folder, its hub id or its short name; got {got}"):
        Deprojector.from_pretrained(named)


def test_names_near_to_those_that_there_are_are_suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Did you mean best\?$"):
        Deprojector.from_pretrained("bset")
    run = tmp_path / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("data: {}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"runs/mien is no deprojector.* Did you mean runs/mine\?$"):  # the Hub isn't asked
        Deprojector.from_pretrained("runs/mien")


def test_a_selection_is_an_object(pipe: DeprojectorPipeline):
    with pytest.raises(UserError, match=r"selection is an object, as deproj.selection.EosOnward\(\); got 'all'"):
        DeprojectorPipeline.from_pretrained("pixel", "best", selection="all")  # type: ignore[arg-type]
