"""The layout: folders in floors, imports that run one way, functions that fit a screen."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "deproj"
#: From the lowest floor to the highest: a module imports only from lower floors, and from its own folder.
FLOORS = (
    ("process", "texts"),
    ("selection", "settings"),
    ("runs", "pixel"),
    ("clip",),
    ("model",),
    ("feed", "expression", "data", "draw", "encoder", "combine"),
    ("measure", "pipeline"),
    ("training", "report"),
    ("speed",),
    ("__main__", "train", "evaluate", "generate", "demo", "bench", "convert", "fullsize"),
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
#: A function is at most this long; the recurrence's kernels, a place's equations in one piece each, are let off.
LONGEST = 79
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


def room(path: Path) -> str:
    """The folder of a module below the package, or the module itself."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Rooms that a module imports, wherever it does."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("deproj.") and name != "deproj.__version__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_run_one_way(path: Path):
    own = room(path)
    for name in imported(ast.parse(path.read_text(encoding="utf-8"))):
        assert name == own or FLOOR[name] < FLOOR[own], f"{own} (floor {FLOOR[own]}) imports {name} (floor {FLOOR[name]})"


def test_every_folder_says_what_it_holds_and_may_import():
    for folder in {path.parent for path in MODULES} - {PACKAGE}:
        said = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        assert "Imports" in said or "imports" in said, folder


def test_functions_fit_a_screen():
    long = []
    for path in MODULES:
        if path.parent.name == "recurrence":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > LONGEST:
                    long.append((path.name, node.name, lines))
    assert not long
