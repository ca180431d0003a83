"""Part 1: it works. The first run on the card, its model read back on a CPU, measures and states against the CPU's."""

from __future__ import annotations

import itertools
import json
import shutil

import torch
from shared import CUDA, DEVICE, OUT, SHORT, WORK, check, deproj, end, furthest, keep

from deproj.data.sources import GrammarPrompts
from deproj.draw.renderer import Renderer
from deproj.draw.stable_diffusion import StableDiffusion
from deproj.measure.evaluator import Evaluator, evaluation_prompts
from deproj.model import Deprojector
from deproj.pipeline import selection_of
from deproj.runs.folder import RunFolder

#: Held-out loss of experiments/first, and the model whose measures on a CPU lie in its own folder.
LOSS, SHIPPED = 0.0646, "eos_onward-recursive"


def train() -> RunFolder:
    """`make train`'s run, the sheet drawn on the card every epoch."""
    few = ["data.size=200", "data.held_out=20", "trainer.max_epochs=1", "sd.steps=4"] if not CUDA else []
    arguments = ["experiment=first", "hydra.run.dir=run", "evaluate=0", f"data.cache={WORK}/cache/samples", *few]
    seconds, _ = deproj("train", *arguments)
    run = RunFolder(WORK / "run")
    result = run.read_result()
    keep("train", {"seconds": round(seconds, 1), "val_loss": result.val_loss, "phases": result.phases, "machine": result.machine})
    if CUDA:
        check(abs(result.val_loss / LOSS - 1) <= 0.02, f"held-out loss {result.val_loss:.4f} within 2 % of the CPU's {LOSS}")
    sheets = [run.sheet(epoch).is_file() for epoch in range(1, result.epochs + 1)]
    check(all(sheets) and bool(sheets), "a sheet was drawn every epoch")
    shutil.copy(run.best_sheet, OUT / "sheet.png")
    return run


def read_back(run: RunFolder) -> None:
    """The exported model on the CPU and on the card."""
    model = Deprojector.from_pretrained(run.path)
    embedding = torch.randn(50, len(model.sos), generator=torch.Generator().manual_seed(0))
    there = model.to(DEVICE).generate(embedding.to(DEVICE))
    far = furthest(there, model.cpu().generate(embedding))
    keep("model on the card against the CPU", far)
    check(far <= 1e-4, f"states of a model read back differ by {far:.1e}, at most 1e-4 in float32")


def measures() -> None:
    """Fidelity and conditioning error with pictures in float32 and float16, against those measured on a CPU."""
    sd, count = StableDiffusion.named("pixel"), 4 if SHORT else 200 if CUDA else 10
    encoder = sd.encoder(DEVICE)
    model = Deprojector.from_pretrained(SHIPPED, encoder).to(DEVICE)
    selection = selection_of(model)
    assert selection is not None
    on_cpu = model.provenance["results"]["evaluation"]
    kinds = {"float32": torch.float32, **({"float16": torch.float16} if CUDA else {})}
    for name, dtype in kinds.items():
        renderer = Renderer(sd.settings, encoder.empty.states[0], DEVICE, dtype)
        prompts = evaluation_prompts(GrammarPrompts(), count, 0)
        values = Evaluator(encoder, renderer, prompts, None, WORK / "references")(model, selection).values
        for kind, measure in itertools.product(("single", "composed"), ("fidelity", "conditioning error")):
            here, there = values[f"{kind}/{measure}"], on_cpu[kind][measure]["value"]
            keep(f"{name}, {kind}, {measure}", {"here": here, "CPU, 200 prompts": there})
            if CUDA:
                check(abs(here - there) <= 0.01, f"{name}, {kind}: {measure} {here:.3f} within 0.01 of the CPU's {there:.3f}")


def states() -> None:
    """States of 300 prompts on the card against the CPU's, in each precision."""
    sd = StableDiffusion.named("pixel")
    texts = list(itertools.islice(GrammarPrompts().training(1), 20 if SHORT else 300))
    true = sd.encoder("cpu")(texts).states
    bounds = {torch.float32: 1e-3, torch.bfloat16: 0.5, torch.float16: 0.05}
    for dtype, bound in bounds.items() if CUDA else [(torch.float32, 1e-3), (torch.bfloat16, 0.5)]:
        encoder = sd.encoder(DEVICE)
        encoder.model.to(dtype)
        far = furthest(encoder(texts).states, true)
        keep(f"states in {str(dtype).removeprefix('torch.')} against the CPU's float32", far)
        check(far <= bound, f"states in {dtype} differ by {far:.2e}, at most {bound}")


read_back(train())
states()
measures()
print(json.dumps({"done": True}))
end()
