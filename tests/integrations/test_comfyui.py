"""The nodes, against a stand-in of ComfyUI's interface over the pixel world's real text encoder.

`against_comfyui.py` beside this file runs them in ComfyUI itself.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from deproj.clip.encoder import TextEncoder
from deproj.clip.images import ImageEncoder, drawings
from deproj.model import LSTMDeprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.pixel import MODELS
from deproj.pixel.scenes import draw, sample
from deproj.process.errors import UserError

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
PROMPT = "1girl red hair"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ComfyUI's ``models`` folder."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "deprojectors" / "some").mkdir(parents=True)
    (folder / "deprojectors" / "some" / "all").symlink_to(MODELS / "all-batch")
    return folder


@pytest.fixture(scope="module")
def package(models: Path) -> Iterator[ModuleType]:
    """The folder, imported as ComfyUI imports what is in ``custom_nodes``."""
    paths: dict[str, list[str]] = {}
    stand_in: Any = ModuleType("folder_paths")
    stand_in.models_dir = str(models)
    stand_in.add_model_folder_path = lambda name, path: paths.setdefault(name, []).append(path)
    stand_in.get_folder_paths = paths.__getitem__
    sys.modules["folder_paths"] = stand_in
    spec = spec_from_file_location("custom_nodes_deproj", FOLDER / "__init__.py", submodule_search_locations=[str(FOLDER)])
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    for name in [name for name in sys.modules if name.startswith(spec.name)] + ["folder_paths"]:
        del sys.modules[name]


class Clip:
    """What ComfyUI's CLIP answers: chunks of 77 tokens, weights in brackets, and the pooled output of the first chunk.

    Args:
        layer: "CLIP Set Last Layer": -1 for the last, -2 for the one before.
    """

    def __init__(self, encoder: TextEncoder, layer: int = -1) -> None:
        self.encoder, self.layer = encoder, layer

    def tokenize(self, text: str) -> dict[str, Any]:
        parts = re.split(r"(?<!\\)\(([^:()]*):([\d.]+)\)", text)
        words = [
            (token, float(parts[k + 1]) if k % 3 == 1 else 1.0)
            for k in range(len(parts)) if k % 3 != 2
            for token in self.encoder.token_ids([parts[k].replace("\\(", "(").replace("\\)", ")")])[0][1:-1]
        ]  # fmt: skip
        first, last = self.encoder.token_ids([""])[0]
        chunks = [words[k : k + 75] for k in range(0, max(len(words), 1), 75)]
        return {"l": [([(first, 1.0), *chunk] + [(last, 1.0)] * 76)[:77] for chunk in chunks]}

    def encode_from_tokens(self, tokens: dict[str, Any], return_pooled: Any = False) -> tuple[Tensor, Tensor]:
        chunks = tokens["l"]
        ids = torch.tensor([[token for token, _ in chunk] for chunk in chunks])
        weights = torch.tensor([[share for _, share in chunk] for chunk in chunks])
        with torch.no_grad():
            out = self.encoder.model(input_ids=ids, output_hidden_states=True)
        states = out.last_hidden_state if self.layer == -1 else self.encoder.final_norm(out.hidden_states[self.layer])
        place = (ids[0] == self.encoder.tokenizer.eos_token_id).int().argmax()
        empty = self.encoder.empty.states
        return ((states - empty) * weights[..., None] + empty).flatten(0, 1)[None], out.last_hidden_state[0, place][None]

    def conditioning(self, text: str, **options: Any) -> list[Any]:
        """As of CLIP Text Encode."""
        states, pooled = self.encode_from_tokens(self.tokenize(text))
        return [[states, {"pooled_output": pooled, **options}]]


@pytest.fixture(scope="module")
def clip(encoder: TextEncoder) -> Clip:
    return Clip(encoder)


@pytest.fixture(scope="module")
def loaded(package: ModuleType) -> Any:
    return out_of(package, "DeprojLoad", model="some/all", path="")


@pytest.fixture(scope="module")
def pipe() -> DeprojectorPipeline:
    return DeprojectorPipeline.from_pretrained("all-batch", device="cpu")


def out_of(package: ModuleType, name: str, **inputs: Any) -> Any:
    """What a node puts out, of inputs that it names."""
    node = package.NODE_CLASS_MAPPINGS[name]
    asked = node.INPUT_TYPES()
    assert set(asked["required"]) <= set(inputs) <= set(asked["required"]) | set(asked.get("optional", {}))
    (made,) = getattr(node(), node.FUNCTION)(**inputs)
    return made


def states_of(conditioning: list[Any]) -> Tensor:
    ((states, _),) = conditioning
    return states


def test_every_node_says_what_it_is(package: ModuleType):
    assert set(package.NODE_CLASS_MAPPINGS) == set(package.NODE_DISPLAY_NAME_MAPPINGS)
    for node in package.NODE_CLASS_MAPPINGS.values():
        assert node.CATEGORY == "deproj"
        assert node.DESCRIPTION.endswith(".")
        assert callable(getattr(node, node.FUNCTION))
        for inputs in node.INPUT_TYPES().values():
            assert all(options["tooltip"].endswith(".") for _, options in inputs.values())


def test_the_picker_lists_folders_and_a_path_is_taken(package: ModuleType, tmp_path: Path):
    load = package.NODE_CLASS_MAPPINGS["DeprojLoad"]
    assert load.INPUT_TYPES()["required"]["model"][0] == ["some/all"]
    by_name, by_path = (
        out_of(package, "DeprojLoad", model=name, path=path) for name, path in (("some/all", ""), ("", "all-batch"))
    )
    assert torch.equal(by_name.model.sos, by_path.model.sos)
    with pytest.raises(UserError, match="no deprojector 'gone' in models/deprojectors"):
        out_of(package, "DeprojLoad", model="gone", path="")


def test_one_of_another_clip_skip_is_refused(package: ModuleType, encoder: TextEncoder, tmp_path: Path):
    model = LSTMDeprojector.for_encoder(encoder)
    model.provenance["clip_skip"] = 2
    model.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="trained with clip skip 2; the nodes take those of clip skip 1"):
        out_of(package, "DeprojLoad", model="", path=str(tmp_path))


def test_a_deprojector_that_was_trained_anew_is_loaded_anew(package: ModuleType, encoder: TextEncoder, tmp_path: Path):
    load = package.NODE_CLASS_MAPPINGS["DeprojLoad"]
    LSTMDeprojector.for_encoder(encoder).save_pretrained(tmp_path)
    before = load.IS_CHANGED("", str(tmp_path))
    assert load.IS_CHANGED("", str(tmp_path)) == before
    LSTMDeprojector.for_encoder(encoder).save_pretrained(tmp_path)
    assert load.IS_CHANGED("", str(tmp_path)) != before


def test_a_prompts_conditioning_is_deprojected_as_by_the_pipeline(
    package: ModuleType, loaded: Any, clip: Clip, pipe: DeprojectorPipeline
):
    given = clip.conditioning(PROMPT, area=(8, 8, 0, 0))
    for strength in (1.0, 0.25, 0.0):
        made = out_of(package, "DeprojConditioning", deprojector=loaded, conditioning=given, strength=strength)
        assert torch.allclose(states_of(made), pipe.states_of(PROMPT, strength=strength), atol=1e-3)
        assert made[0][1]["area"] == (8, 8, 0, 0), "what else a conditioning says is passed on"
        assert torch.equal(made[0][1]["pooled_output"], given[0][1]["pooled_output"])
    two = out_of(package, "DeprojConditioning", deprojector=loaded, conditioning=given + clip.conditioning("cat"), strength=1.0)
    assert torch.allclose(torch.cat([pair[0] for pair in two]), pipe.states_of([PROMPT, "cat"]), atol=1e-3)
    assert set(given[0][1]) == {"pooled_output", "area"}, "what was handed over is as it was"


def test_weights_in_brackets_are_not_in_the_embedding(package: ModuleType, loaded: Any, clip: Clip, pipe: DeprojectorPipeline):
    weighed = clip.conditioning("1girl (red:1.5) hair")
    assert not torch.allclose(weighed[0][0], clip.conditioning(PROMPT)[0][0], atol=1e-2)
    made = out_of(package, "DeprojConditioning", deprojector=loaded, conditioning=weighed, strength=1.0)
    assert torch.allclose(states_of(made), pipe.states_of(PROMPT), atol=1e-3)
    assert "Weights" in package.NODE_CLASS_MAPPINGS["DeprojConditioning"].DESCRIPTION


@pytest.mark.parametrize("text", ["cat, maid", "1girl, red hair:1.2, -black skirt", "cat | 1boy @ 0.3", '"(red) hair"', ""])
def test_expressions_are_those_of_the_pipeline(
    text: str, package: ModuleType, loaded: Any, clip: Clip, pipe: DeprojectorPipeline
):
    made = out_of(package, "DeprojExpression", deprojector=loaded, clip=clip, text=text)
    assert torch.allclose(made[0][1]["pooled_output"], pipe.embed([text]), atol=1e-4)
    assert torch.allclose(states_of(made), pipe.states_of(text), atol=1e-3)


def test_mixes_are_sums_relative_to_the_empty_prompt(package: ModuleType, loaded: Any, clip: Clip, pipe: DeprojectorPipeline):
    one = out_of(package, "DeprojExpression", deprojector=loaded, clip=clip, text="cat")
    inputs = {"deprojector": loaded, "clip": clip, "a": one, "weight_a": 0.5, "b": clip.conditioning("maid"), "weight_b": 2.0}
    assert torch.allclose(states_of(out_of(package, "DeprojMix", **inputs)), pipe.states_of("cat:0.5, maid:2"), atol=1e-3)
    third = {"c": clip.conditioning(PROMPT), "weight_c": -1.0}
    made = states_of(out_of(package, "DeprojMix", **inputs, **third))
    assert torch.allclose(made, pipe.states_of(f"cat:0.5, maid:2, -{PROMPT}"), atol=1e-3)


def test_pictures_go_the_pipelines_way_across(package: ModuleType, loaded: Any, encoder: TextEncoder, pipe: DeprojectorPipeline):
    images = ImageEncoder("pixel", encoder, pipe.model.distance)
    photo = Image.fromarray(draw(sample(1, np.random.default_rng(5)))[0])
    seen = torch.cat([images.project(drawings()[k : k + 100]) for k in range(0, 500, 100)])
    made = out_of(
        package, "DeprojImage", deprojector=loaded,
        picture={"image_embeds": images.project([photo])}, reference={"image_embeds": seen},
    )  # fmt: skip
    assert torch.allclose(made[0][1]["pooled_output"], pipe.embed([photo]), atol=1e-3)
    assert torch.allclose(states_of(made), pipe.states_of(image=photo), atol=1e-2)


def test_far_embeddings_and_marks_are_said_in_the_log(package: ModuleType, loaded: Any, clip: Clip, caplog: Any):
    out_of(package, "DeprojExpression", deprojector=loaded, clip=clip, text="((cat)), red hair:9")
    assert "times as far out" in caplog.text
    assert "((cat)) is a mark of other programs" in caplog.text


def test_what_is_no_embedding_of_the_models_encoder_is_refused(
    package: ModuleType, loaded: Any, clip: Clip, encoder: TextEncoder
):
    plain = clip.conditioning(PROMPT)
    made = out_of(package, "DeprojExpression", deprojector=loaded, clip=clip, text="cat")
    ((states, options),) = plain
    projected = [[states, {"pooled_output": options["pooled_output"] @ encoder.projection.T}]]
    averaged = [[states, {"pooled_output": (options["pooled_output"] + encoder.empty.embedding) / 2}]]
    other = [[states + 0.5, options]]
    foreign = [[made[0][0], made[0][1] | {"deproj_encoder": "another"}]]
    long = clip.conditioning("red hair " * 60)
    assert long[0][0].shape[1] == 154
    for given, strength, said in (
        (long, 1.0, "longer than 77 tokens: it was encoded as 2 chunks"),
        (projected, 1.0, "the pooled output is none of the conditioning's states"),
        (averaged, 1.0, "the pooled output is none of the conditioning's states"),
        (other, 1.0, "not of the text encoder that this deprojector was trained on"),
        (Clip(encoder, -2).conditioning(PROMPT), 1.0, "CLIP Set Last Layer"),
        (foreign, 1.0, "another deprojector's"),
        (made, 0.5, "deprojected already"),
        ([[states, {}]], 1.0, "no pooled output"),
        ([[states, {"pooled_output": torch.zeros(1, 1280)}]], 1.0, r"\(B, 128\) for this deprojector; got \(1, 1280\)"),
    ):
        with pytest.raises(UserError, match=said):
            out_of(package, "DeprojConditioning", deprojector=loaded, conditioning=given, strength=strength)
    mixing = {"deprojector": loaded, "clip": clip, "a": plain, "weight_a": 1.0, "weight_b": 1.0}
    with pytest.raises(UserError, match="there is no CLIP"):
        out_of(package, "DeprojMix", **mixing | {"clip": None}, b=plain)
    for b, said in ((plain * 2, "got 2 combined"), (long, "longer than 77"), (projected, "none of the conditioning's states")):
        with pytest.raises(UserError, match=said):
            out_of(package, "DeprojMix", **mixing, b=b)
    for encoded, text, said in (
        (clip, "red hair " * 60, "longer than 77"), (clip, "<photo>", "no picture is named <photo>"),
        (clip, "(cat", "not closed"),
        (Clip(encoder, -2), "cat", "CLIP Set Last Layer"), (None, "cat", "there is no CLIP"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            out_of(package, "DeprojExpression", deprojector=loaded, clip=encoded, text=text)


def test_pictures_that_cannot_be_taken_are_refused(package: ModuleType, loaded: Any, encoder: TextEncoder):
    some = {"image_embeds": torch.randn(3, 128)}
    bare = type(loaded)(LSTMDeprojector.for_encoder(encoder))
    for deprojector, picture, reference, said in (
        (bare, some, some, "takes no pictures"),
        (loaded, {"image_embeds": torch.randn(1, 1024)}, some, "128 wide"),
        (loaded, some, {"image_embeds": torch.randn(1, 128)}, "a hundred or more; got 1"),
    ):
        with pytest.raises(UserError, match=said):
            out_of(package, "DeprojImage", deprojector=deprojector, picture=picture, reference=reference)


def test_comfyuis_model_management_moves_the_model(
    package: ModuleType, monkeypatch: pytest.MonkeyPatch, pipe: DeprojectorPipeline
):
    loaded: list[Any] = []
    management: Any = ModuleType("comfy.model_management")
    management.text_encoder_device = management.text_encoder_offload_device = lambda: torch.device("cpu")
    management.intermediate_device = lambda: torch.device("meta")
    management.load_models_gpu = lambda patchers, force_full_load: loaded.extend(patchers)
    patching: Any = ModuleType("comfy.model_patcher")
    patching.ModelPatcher = lambda model, load_device, offload_device: model
    comfy: Any = ModuleType("comfy")
    comfy.model_management = management
    for name, module in (("comfy", comfy), ("comfy.model_management", management), ("comfy.model_patcher", patching)):
        monkeypatch.setitem(sys.modules, name, module)
    managed = out_of(package, "DeprojLoad", model="some/all", path="")
    assert managed.generate(pipe.embed(["cat"])).device.type == "meta"
    assert loaded == [managed.model]


def test_the_example_names_nodes_and_inputs_that_there_are(package: ModuleType):
    graph = json.loads((FOLDER / "example.json").read_text(encoding="utf-8"))
    ours = [node for node in graph.values() if node["class_type"] in package.NODE_CLASS_MAPPINGS]
    assert {node["class_type"] for node in ours} == set(package.NODE_CLASS_MAPPINGS) - {"DeprojImage"}
    for node in ours:
        asked = package.NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES()
        assert set(asked["required"]) <= set(node["inputs"]) <= set(asked["required"]) | set(asked.get("optional", {}))


def test_deproj_itself_knows_nothing_of_comfyui():
    top = FOLDER.parents[1] / "deproj"
    for path in top.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) (comfy|folder_paths)", path.read_text(encoding="utf-8"), re.M), path
