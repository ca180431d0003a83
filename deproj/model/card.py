"""The card of a model, in the Hub's form."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from deproj.runs.records import spelt, told

__all__ = ["FILES", "model_card"]

#: What a model's folder holds; the sheet only where its run drew one.
FILES = ("config.json", "model.safetensors", "README.md", "sheet.png")
ABOUT = """
Gives the 77 hidden states of CLIP's text encoder, which Stable Diffusion is conditioned on, back from the embedding alone: of a
prompt, of a sum of prompts, or of an image.
"""


SHEET = """![Benchmark prompts](sheet.png)

*Above: from the true states of each prompt. Below: from its embedding (left), or from the sum of the embeddings of its parts
(right).*
"""


USE = """## Use

```python
from deproj.model.base import Deprojector

model = Deprojector.from_pretrained("{name}")
states = model.generate(embedding)  # (B, D) to (B, 77, D): prompt_embeds of a diffusers pipeline
```
"""


def model_card(stored: dict[str, Any], name: str, sheet: bool) -> str:
    """The README.md of a model's folder.

    Args:
        stored: what its config.json holds.
        name: it can be loaded by.
        sheet: whether sheet.png lies beside it.
    """
    provenance, results = stored["provenance"], stored["provenance"].get("results") or {}
    choices = {group: str((provenance.get(group) or {}).get("name") or "") for group in ("selection", "feed")}
    title = ", ".join(choice for choice in choices.values() if choice)
    evaluation = results.get("evaluation") or {}
    measured = [
        EvalResult(
            task_type="text-to-image",
            dataset_type="held-out",
            dataset_name=f"{entry['n']} held-out prompts",
            dataset_config=kind,
            metric_type=spelt(measure),
            metric_name=told(measure),
            metric_value=entry["value"],
        )
        for kind in ("single", "composed")
        for measure, entry in (evaluation.get(kind) or {}).items()
        if entry["value"] is not None
    ]
    data = ModelCardData(
        library_name="deproj",
        pipeline_tag="text-to-image",
        tags=["clip", "stable-diffusion", "deprojector"],
        model_name=name if measured else None,
        eval_results=measured or None,
    )
    lines = [f"# Deprojector{f': {title}' if title else ''}", ABOUT]
    if sheet:
        lines += [SHEET]
    lines += [USE.format(name=name), "## Numbers\n", *numbers(evaluation, results)]
    lines += ["## Settings\n", "| | |", "|---|---|"]
    said = {"model": stored["model_type"]} | {k: v for k, v in stored.items() if isinstance(v, int | float | str)}
    said |= choices | {"text encoder": str(provenance.get("encoder") or "unknown")[:16]}
    lines += [f"| {key} | {value} |" for key, value in said.items() if key != "model_type" and value != ""]
    if results.get("command"):
        lines += ["", "## Training", "", "```", results["command"], "```"]
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + "\n".join(lines) + "\n"))


def numbers(evaluation: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """The evaluation as a table, with its 95 % intervals over prompts."""
    lines = []
    if results.get("val_loss") is not None:
        lines += [f"Held-out free-running loss {results['val_loss']:.4f} after {results['epochs']} epochs.", ""]
    if not evaluation:
        return [*lines, "Not evaluated.", ""]
    counts = " and ".join(f"{max(e['n'] for e in evaluation[kind].values())} {kind}" for kind in ("single", "composed"))
    lines += [
        f"From {counts} held-out prompts, with 95 % intervals over prompts; deproj's docs/measures.md explains the measures.",
        "",
    ]
    lines += ["| measure | single | composed |", "|---|---|---|"]

    def cell(entry: dict[str, Any] | None) -> str:
        if entry is None or entry["value"] is None:
            return ""
        between = "" if entry["low"] is None or entry["high"] is None else f" ({entry['low']:.3f}, {entry['high']:.3f})"
        return f"{entry['value']:.3f}{between}"

    for measure in evaluation["single"]:
        lines.append(f"| {told(measure)} | {cell(evaluation['single'][measure])} | {cell(evaluation['composed'].get(measure))} |")
    untrained = [region for region, trained in (evaluation.get("trained") or {}).items() if not trained]
    if untrained:
        lines += ["", f"Regions that its selection doesn't train: {', '.join(untrained)}."]
    return [*lines, ""]
