"""docs/notebook.ipynb: it runs, and it is stored with the pictures that it draws."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


def pictures(cells: list[Any]) -> Iterator[Image.Image]:
    for cell in cells:
        for output in cell.get("outputs", []):
            if content := output.get("data", {}).get("image/png"):
                yield Image.open(io.BytesIO(base64.b64decode(content)))


def test_it_runs_and_draws_what_is_stored(tmp_path: Path):
    stored = nbformat.read(NOTEBOOK, 4)
    nbformat.validate(stored)
    run = nbformat.read(NOTEBOOK, 4)
    NotebookClient(run, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    before, after = list(pictures(stored.cells)), list(pictures(run.cells))
    assert len(before) >= 7
    assert [picture.size for picture in before] == [picture.size for picture in after]
    assert all(min(picture.size) >= 256 for picture in after), "large enough to be looked at"
    said = "".join(output.get("text", "") for cell in run.cells for output in cell.get("outputs", []))
    assert "Traceback" not in said
    assert "of single prompts" in said
