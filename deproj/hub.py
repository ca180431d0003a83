"""Where a model comes from and where it goes: its folder, short name or hub id, and its card in the Hub's form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deproj.errors import UserError
from deproj.files import intact

__all__ = ["FILES", "locate_model", "model_card", "reach", "shipped", "upload"]

#: What a model's folder holds; the sheet only where its run drew one.
FILES = ("config.json", "model.safetensors", "README.md", "sheet.png")
SHIPPED = Path(__file__).parent / "pixel" / "models"


def shipped() -> list[str]:
    """Short names of the models that come with the package, all trained in the pixel world."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/config.json"))


def locate_model(source: str | Path, revision: str | None = None) -> Path:
    """The folder of an exported model.

    Args:
        source: that folder, a run's folder, a short name (`shipped`), or a hub id, which is downloaded once.
        revision: branch, tag or commit on the Hub.

    Raises:
        UserError: where there is none.
    """
    folder = Path(source)
    if (folder / "deprojector").is_dir():
        return folder / "deprojector"
    if (folder / "config.yaml").is_file():
        raise UserError(f"{folder} is no deprojector, but a run whose training isn't done.")
    if folder.is_dir():
        return folder
    if str(source) in shipped():
        return intact(SHIPPED) / str(source)
    if folder.is_absolute() or len(folder.parts) != 2 or folder.parts[0] in (".", ".."):
        raise UserError(
            f"{source} is no deprojector: give a run's folder, an exported model's, a hub id such as owner/name, "
            f"or one of {', '.join(shipped())}."
        )
    return download(str(source), FILES, revision)


def download(repo_id: str, files: Sequence[str], revision: str | None = None) -> Path:
    """Files of a repository on the Hub, or of its copy here, which is asked for once; gives their folder."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=list(files)))
    except (OSError, ValueError, HfHubHTTPError, httpx.HTTPError) as error:
        raise UserError(f"no folder {repo_id}, and no such model from the Hub: {told(error)}") from None


def reach(source: str, file: str, what: str) -> None:
    """Asks the Hub for one small file of what is no local folder.

    Where there is no network, this tells so at once, while loading the parts tries again and again, for minutes.

    Raises:
        UserError: for what is neither a folder nor on the Hub, nor downloaded.
    """
    folder = Path(source)
    if folder.is_dir():
        return
    if folder.is_absolute() or len(folder.parts) != 2 or folder.parts[0] in (".", ".."):
        raise UserError(f"no {what} at {source!r}: give a folder, or a hub id such as owner/name.")
    download(source, [file])


def told(error: Exception) -> str:
    """An error of the Hub in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def upload(folder: Path, repo_id: str, message: str, private: bool | None, token: str | None, **options: Any) -> str:
    """Makes the repository where there is none, and commits a model's files to it.

    Returns:
        The commit's address.
    """
    import httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit: Any = api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message, allow_patterns=list(FILES), **options
        )
    except (OSError, ValueError, HfHubHTTPError, httpx.HTTPError) as error:
        raise UserError(f"{repo_id} could not be pushed: {told(error)} (`hf auth login` gives a token.)") from None
    return str(commit.pr_url or commit.commit_url)


# --- The card -------------------------------------------------------------------------------------


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
from deproj.model import Deprojector

model = Deprojector.from_pretrained({name!r})
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
    from huggingface_hub import EvalResult, ModelCard, ModelCardData

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
            metric_type=measure.replace(" ", "_"),
            metric_name=measure,
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
    lines += [f"From {counts} held-out prompts, with 95 % intervals over prompts; deproj's README explains the measures.", ""]
    lines += ["| measure | single | composed |", "|---|---|---|"]

    def cell(entry: dict[str, Any] | None) -> str:
        if entry is None or entry["value"] is None:
            return ""
        between = "" if entry["low"] is None or entry["high"] is None else f" ({entry['low']:.3f}, {entry['high']:.3f})"
        return f"{entry['value']:.3f}{between}"

    for measure in evaluation["single"]:
        lines.append(f"| {measure} | {cell(evaluation['single'][measure])} | {cell(evaluation['composed'].get(measure))} |")
    untrained = [region for region, trained in (evaluation.get("trained") or {}).items() if not trained]
    if untrained:
        lines += ["", f"Regions that its selection doesn't train: {', '.join(untrained)}."]
    return [*lines, ""]
