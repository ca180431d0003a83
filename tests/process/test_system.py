"""What differs from one operating system to another, each branch on any of them."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

from deproj.process import system
from deproj.process.interruption import Interruption

ROOT = Path(__file__).parents[2]
#: Names that are missing on one system or another, and the only module that may hold them.
POSIX = ("preadv", "resource", "SIGUSR1", "SIGUSR2", "SIGKILL", "fork", "fcntl", "getuid", "malloc_trim", "/proc")
HOME = ROOT / "deproj" / "process" / "system.py"


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def names_in(tree: ast.AST) -> set[str]:
    """Attributes, names, imports and texts other than docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    found |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names}
    texts = (node for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return found | {str(node.value) for node in texts if id(node) not in docs}


@pytest.mark.parametrize("path", sources("deproj"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_one_module_alone_knows_the_operating_system(path: Path):
    found = names_in(ast.parse(path.read_text(encoding="utf-8")))
    there = {name for name in POSIX if any(name == each or (name == "/proc" and each.startswith(name)) for each in found)}
    assert path == HOME or not there
    if path == HOME:
        assert there >= {"resource", "SIGUSR1", "malloc_trim", "/proc"}, "the check sees nothing"


@pytest.mark.parametrize("path", sources("deproj", "experiments", "tests"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_is_opened_with_its_encoding(path: Path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        named = any(keyword.arg == "encoding" for keyword in node.keywords)
        texts = [str(each.value) for each in node.args if isinstance(each, ast.Constant)]
        if name == "read_text":
            assert named or texts, node.lineno
        elif name == "write_text":
            assert named or len(node.args) > 1, node.lineno
        elif name == "open" and ast.unparse(node.func) in ("open", "path.open", "said.open") and not any("b" in t for t in texts):
            assert named, node.lineno


def test_the_main_job_does_without_what_a_system_may_lack(
    train: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on Windows: no USR signals, no glibc, no preadv."""
    monkeypatch.setattr(system, "_trim", None)
    monkeypatch.setattr("deproj.process.interruption.TIME_SIGNALS", ())
    for name in ("preadv", "fork"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert train("hydra.run.dir=run", "render=1", "sd.steps=3", "evaluate=2").code == 0
    assert (tmp_path / "run" / "result.json").exists()
    assert Interruption().numbers == system.END_SIGNALS


def test_memory_is_told_or_left_out(monkeypatch: pytest.MonkeyPatch):
    assert (system.peak_memory() or 100) > 10
    system.give_back()
    for platform in ("win32", "darwin"):
        monkeypatch.setattr(system.sys, "platform", platform)
        monkeypatch.setitem(sys.modules, "resource", None)
        assert system.peak_memory() is None
        assert system.trim() is None


def test_commands_are_quoted_as_the_system_takes_them(monkeypatch: pytest.MonkeyPatch):
    for name, wanted in (("posix", "'my run'"), ("nt", '"my run"')):
        monkeypatch.setattr(system.os, "name", name)
        assert system.command_line(["python", "my run"]) == f"python {wanted}"


def test_windows_is_asked_again_to_replace_an_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Path] = []

    def refuse(source: Path, target: Path) -> None:
        asked.append(source)
        if len(asked) < 3:
            raise PermissionError

    monkeypatch.setattr(system.os, "replace", refuse)
    monkeypatch.setattr(system, "PAUSE", 0)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "a", tmp_path / "b")
    assert len(asked) == 1
    monkeypatch.setattr(system.os, "name", "nt")
    system.replace(tmp_path / "a", tmp_path / "b")
    assert len(asked) == 3


def test_an_ascii_locale_and_captions_of_all_scripts(tmp_path: Path, caches: Path):
    """Captions in any script, in a folder of any name, where the locale knows ASCII only."""
    folder = tmp_path / "Bilder für 猫 (1)"
    folder.mkdir()
    (folder / "captions.txt").write_text("".join(f"猫 {k}, メイド {k}\n" for k in range(60)), encoding="utf-8")
    settings = ["data.prompts=captions.txt", "data.size=20", "data.held_out=4", "data.batch_size=10", "trainer.max_epochs=1"]
    settings += ["hydra.run.dir=run", f"data.cache={caches}", "render=off", "evaluate=2", "sd.steps=3"]
    ended = subprocess.run(
        [sys.executable, "-m", "deproj.train", *settings],
        cwd=folder,
        env=os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"},
        capture_output=True,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert all("猫" in prompt for prompt in evaluation["prompts"])


def test_a_run_in_a_folder_of_any_name(train: Callable[..., Ended], tmp_path: Path):
    assert train("hydra.run.dir='Läufe für 猫/(1), eins'").code == 0
    assert (tmp_path / "Läufe für 猫" / "(1), eins" / "result.json").exists()
