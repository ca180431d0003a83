"""Runs the nodes in ComfyUI itself, on random weights of Stable Diffusion 1.5's shapes, on a CPU; minutes.

    python -m deproj.fullsize FULL --single-file
    python tests/integrations/against_comfyui.py COMFYUI FULL OUT

COMFYUI is a checkout with its requirements installed, and OUT a new folder, which gets ComfyUI's models, links and pictures.
ComfyUI's loader, text encoder, sampler, VAE and executor are its own; what its nodes make is held against deproj's pipeline.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from deproj.clip.distance import EmbeddingDistance
from deproj.clip.encoder import TextEncoder
from deproj.data.sources import GrammarPrompts
from deproj.model import LSTMDeprojector

NODES = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"
PROMPTS = ("a cat in a forest", "", "1girl, red hair, black skirt, standing at night in a city")


def make_models(comfyui: Path, full: Path, out: Path) -> tuple[TextEncoder, LSTMDeprojector]:
    """Fills ComfyUI's ``models``; the deprojector is untrained."""
    encoder = TextEncoder.from_pretrained(
        full / "model.safetensors", full / "clip", tokenizer=comfyui / "comfy" / "sd1_tokenizer"
    )
    torch.manual_seed(0)
    model = LSTMDeprojector.for_encoder(encoder)
    captions = GrammarPrompts().training(0)
    model.distance = EmbeddingDistance.fit(encoder.embed([next(captions) for _ in range(200)]))
    model.provenance["selection"] = {"_target_": "deproj.selection.EosOnward", "name": "eos_onward"}
    for name in ("checkpoints", "clip_vision", "deprojectors"):
        (out / "models" / name).mkdir(parents=True)
    model.save_pretrained(out / "models" / "deprojectors" / "mine")
    (out / "models" / "checkpoints" / "model.safetensors").symlink_to((full / "model.safetensors").resolve())
    (out / "models" / "clip_vision" / "clip.safetensors").symlink_to((full / "clip" / "model.safetensors").resolve())
    (out / "custom_nodes").mkdir()
    (out / "custom_nodes" / "deproj").symlink_to(NODES)
    return encoder, model.eval()


def start_comfyui(comfyui: Path, out: Path) -> tuple[Any, Any]:
    """ComfyUI's modules `nodes` and `execution`, with the nodes loaded as it loads them."""
    sys.path.insert(0, str(comfyui))
    sys.argv = ["main.py", "--cpu", "--base-directory", str(out)]
    import comfy.options

    comfy.options.enable_args_parsing()
    import execution
    import nodes

    assert asyncio.run(nodes.load_custom_node(str(out / "custom_nodes" / "deproj"))), "the nodes were not loaded"
    return nodes, execution


def run_graph(execution: Any, graph: dict[str, Any]) -> list[Any]:
    """Validates a workflow and executes it; returns what ended it, if it wasn't its end."""
    valid, error, outputs, details = asyncio.run(execution.validate_prompt("one", graph, None))
    assert valid, (error, details)
    server = SimpleNamespace(client_id=None, last_node_id=None, last_prompt_id=None, send_sync=lambda *told: None)
    executor = execution.PromptExecutor(server)
    executor.execute(graph, "one", {}, outputs)
    return [] if executor.success else executor.status_messages


def close(what: str, a: torch.Tensor, b: torch.Tensor, most: float) -> None:
    """Prints the largest difference, and fails above `most`."""
    far = float((a.float().cpu() - b.float().cpu()).abs().max())
    print(f"{what}: differs by {far:.1e} at most", flush=True)
    assert far <= most, what


@torch.inference_mode()
def main() -> int:
    comfyui, full, out = map(Path, sys.argv[1:])
    encoder, model = make_models(comfyui.resolve(), full, out)
    nodes, execution = start_comfyui(comfyui.resolve(), out.resolve())
    made = nodes.NODE_CLASS_MAPPINGS
    _, clip, _ = made["CheckpointLoaderSimple"]().load_checkpoint("model.safetensors")
    (loaded,) = made["DeprojLoad"]().load("mine")
    for prompt in PROMPTS:
        (given,) = made["CLIPTextEncode"]().encode(clip, prompt)
        ours = encoder([prompt])
        close(f"pooled output of {prompt!r} against the embedding", given[0][1]["pooled_output"], ours.embedding, 1e-2)
        close("its states", given[0][0], ours.states, 1e-2)
        (states,) = made["DeprojConditioning"]().deproject(loaded, given, 1.0)
        close("its deprojected states", states[0][0], model.generate(ours.embedding), 2e-2)
    (skipped,) = made["CLIPSetLastLayer"]().set_last_layer(clip, -2)
    refused = {
        "clip skip 2": made["CLIPTextEncode"]().encode(skipped, PROMPTS[0])[0],
        "two chunks": made["CLIPTextEncode"]().encode(clip, "red hair " * 60)[0],
    }
    weighed = made["CLIPTextEncode"]().encode(clip, "a (cat:1.5) in a forest")[0]
    close("pooled output of (cat:1.5)", weighed[0][1]["pooled_output"], encoder([PROMPTS[0]]).embedding, 1e-2)
    for what, given in refused.items():
        try:
            made["DeprojConditioning"]().deproject(loaded, given, 1.0)
        except ValueError as error:
            print(f"{what} is refused: {error}", flush=True)
        else:
            raise AssertionError(what)
    (vision,) = made["CLIPVisionLoader"]().load_clip("clip.safetensors")
    pictures = torch.rand(4, 224, 224, 3)
    seen, one = (made["CLIPVisionEncode"]().encode(vision, batch, "center")[0] for batch in (pictures, pictures[:1]))
    (states,) = made["DeprojImage"]().deproject(loaded, one, seen)
    print(f"a picture's states are {tuple(states[0][0].shape)}", flush=True)

    graph = json.loads((NODES / "example.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] == "EmptyLatentImage":
            node["inputs"] |= {"width": 128, "height": 128}
        if node["class_type"] == "KSampler":
            node["inputs"] |= {"steps": 3}
    assert not (failed := run_graph(execution, graph)), failed
    drawn = sorted((out / "output").glob("deproj-*.png"))
    assert len(drawn) == 2, drawn
    print(f"the example was executed; {', '.join(path.name for path in drawn)} are in {out / 'output'}")
    return 0


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    sys.exit(main())
