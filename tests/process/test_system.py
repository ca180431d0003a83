"""What differs from one operating system to another, each branch on any of them."""

from __future__ import annotations

import ast
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Ended, call, linux_only
from hydra.core.override_parser.overrides_parser import OverridesParser

from deproj import evaluate
from deproj.process import system
from deproj.process.errors import run_command
from deproj.process.files import alone, write_whole
from deproj.process.interruption import Interruption
from deproj.process.machine import multiplies_bfloat16
from deproj.settings.messages import readable, typed

ROOT = Path(__file__).parents[2]
#: Names that are missing on one system or another, and the only module that may hold them.
POSIX = (
    *("preadv", "resource", "SIGUSR1", "SIGUSR2", "SIGKILL", "fork", "fcntl", "getuid", "malloc_trim", "/proc", "chmod", "chown"),
    *("getrusage", "killpg", "setsid", "sched_getaffinity", "mkfifo", "symlink", "symlink_to", "termios", "pwd", "grp"),
)
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


def mode_of(call: ast.Call, method: bool) -> str:
    """The mode that a call of `open` names; `r` by default."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] or call.args[not method : 2 - method]
    return str(given[0].value) if given and isinstance(given[0], ast.Constant) else "r"


def is_text_without_encoding(call: ast.Call) -> bool:
    """Whether a call opens a file or a process's pipe as text, in whatever encoding this system has."""
    method = isinstance(call.func, ast.Attribute)
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if any(keyword.arg == "encoding" for keyword in call.keywords):
        return False
    if name == "open":
        return ast.unparse(call.func) not in ("Image.open", "os.open", "self.open", "webbrowser.open") and "b" not in mode_of(
            call, method
        )
    if name in ("read_text", "write_text"):
        return len(call.args) < (1 if name == "read_text" else 2)
    if name in ("run", "Popen", "check_output", "check_call"):
        return any(keyword.arg in ("text", "universal_newlines") for keyword in call.keywords)
    return False


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("(folder / name).open('a')", True),
        ("path.open('rb', buffering=0)", False),
        ("open(path, encoding='utf-8')", False),
        ("path.read_text()", True),
        ("path.read_text('utf-8-sig')", False),
        ("path.write_text(text)", True),
        ("subprocess.run(command, text=True)", True),
        ("Image.open(path)", False),
    ],
)
def test_the_check_for_encodings_sees_what_it_should(code: str, wanted: bool):
    call = ast.parse(code, mode="eval").body
    assert isinstance(call, ast.Call)
    assert is_text_without_encoding(call) == wanted


@pytest.mark.parametrize("path", sources("deproj", "experiments", "tests"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_text_is_opened_with_its_encoding(path: Path):
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    assert [ast.unparse(call) for call in calls if is_text_without_encoding(call)] == []


def test_the_main_job_does_without_what_a_system_may_lack(
    train: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As on Windows: no USR signals, no glibc, no preadv, no fork."""
    from deproj import train as command  # libraries that are imported later may need what goes now

    assert command.main
    monkeypatch.setattr(system, "_trim", None)
    monkeypatch.setattr("deproj.process.interruption.TIME_SIGNALS", ())
    for name in ("preadv", "fork"):
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert train("hydra.run.dir=run", "render=1", "sd.steps=3", "evaluate=2").code == 0
    assert (tmp_path / "run" / "result.json").exists()
    assert Interruption().numbers == system.END_SIGNALS


@pytest.mark.parametrize(
    ("able", "faster"),
    [
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, False),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "AMD EPYC", "avx512_bf16": False, "amx_bf16": False}, False),
        ({"cpu_name": "Neoverse-V1", "sve_bf16": True}, True),
        ({}, False),
    ],
)
def test_products_in_bfloat16_are_told_by_the_processor(able: dict[str, Any], faster: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: able)
    assert multiplies_bfloat16("cpu") is faster


def test_two_writers_of_a_file_leave_one_of_the_two(tmp_path: Path):
    path, texts = tmp_path / "a.json", ["a" * 200_000, "b" * 100_000]
    path.write_text(texts[0], encoding="utf-8")
    failed: list[BaseException] = []

    def write(text: str) -> None:
        try:
            for _ in range(60):
                write_whole(path, text)
        except BaseException as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert path.read_text(encoding="utf-8") in texts
    assert not failed
    assert list(tmp_path.iterdir()) == [path]


def test_one_that_looks_keeps_none_out(tmp_path: Path):
    """A listing of runs takes a lock for a moment to see whether it is free."""
    path = tmp_path / ".lock"

    def look() -> None:
        with alone(path):
            time.sleep(0.3)

    looking = threading.Thread(target=look)
    looking.start()
    time.sleep(0.1)
    with alone(path, refusal="another process is at work", patience=5.0):
        pass
    looking.join()


def test_memory_is_told_or_left_out(monkeypatch: pytest.MonkeyPatch):
    assert (system.peak_memory() or 100) > 10
    system.give_back()
    monkeypatch.setattr(system.sys, "platform", "darwin")
    usage = SimpleNamespace(RUSAGE_SELF=0, getrusage=lambda _: SimpleNamespace(ru_maxrss=3 * 2**20))
    monkeypatch.setitem(sys.modules, "resource", usage)
    assert system.peak_memory() == 3
    for platform in ("win32", "darwin"):
        monkeypatch.setattr(system.sys, "platform", platform)
        monkeypatch.setitem(sys.modules, "resource", None)
        assert system.peak_memory() is None
        assert system.trim() is None


@pytest.mark.parametrize(
    ("argument", "posix", "windows"),
    [
        ("data.size=60", "data.size=60", "data.size=60"),
        ("my run", "'my run'", '"my run"'),
        (r"resume=C:\runs\a", r"'resume=C:\runs\a'", r"resume=C:\runs\a"),
        ("D:\\my runs\\", "'D:\\my runs\\'", '"D:\\my runs\\\\"'),
        ('say "x"', "'say \"x\"'", '"say \\"x\\""'),
        ("selection=all,words_eos", "selection=all,words_eos", '"selection=all,words_eos"'),
    ],
)
def test_commands_are_quoted_as_the_system_takes_them(argument: str, posix: str, windows: str, monkeypatch: pytest.MonkeyPatch):
    for here, wanted in ((False, posix), (True, windows)):
        monkeypatch.setattr(system, "WINDOWS", here)
        assert system.command_line(["python", argument]) == f"python {wanted}"


@pytest.mark.parametrize(
    "value", ["C:\\my runs\\a", "C:\\runs\\", "D:/x y", "a'b", "a\\'b", "a\\\\'b\\", "猫/(1), x", "${x}", "it's\\"]
)
def test_a_setting_as_typed_is_read_back(value: str):
    """By a shell, then by Hydra."""
    argument = readable(*shlex.split(typed("resume", value)))
    read: Any = OverridesParser.create().parse_override(argument).value()
    assert getattr(read, "text", read) == value


def test_windows_is_asked_again_to_replace_an_open_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Path] = []

    def refuse(source: Path, target: Path) -> None:
        asked.append(source)
        if len(asked) < 3:
            raise PermissionError

    monkeypatch.setattr(system.os, "replace", refuse)
    monkeypatch.setattr(system, "PAUSE", 0)
    monkeypatch.setattr(system, "WINDOWS", False)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "a", tmp_path / "b")
    assert len(asked) == 1
    monkeypatch.setattr(system, "WINDOWS", True)
    system.replace(tmp_path / "a", tmp_path / "b")
    assert len(asked) == 3


def open_files() -> set[str]:
    """Files that this process holds open or has mapped into its memory."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    mapped = {fields[5] for line in maps if len(fields := line.split(maxsplit=5)) == 6}
    return mapped | {os.readlink(link) for link in links if os.path.lexists(link)}


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Refuses to delete and to replace files that are open, as Windows does; gives those that were refused."""
    refused: list[str] = []

    def guarded(name: str, count: int) -> None:
        real = getattr(os, name)

        def call(*paths: Any, **options: Any) -> None:
            held = open_files()
            for path in (os.path.realpath(path) for path in paths[:count]):
                if path in held:
                    refused.append(f"{name} {path}")
                    raise PermissionError(13, "it is open", path)
            real(*paths, **options)

        monkeypatch.setattr(os, name, call)

    for name, count in (("replace", 2), ("rename", 2), ("unlink", 1), ("remove", 1)):
        guarded(name, count)
    monkeypatch.setattr(shutil, "_use_fd_functions", False)  # so that whole paths are named
    monkeypatch.setattr(system, "PAUSE", 0)
    monkeypatch.setattr("deproj.process.system.WINDOWS", True)
    monkeypatch.setattr("deproj.training.made.WINDOWS", True)
    return refused


@linux_only
def test_nothing_that_is_open_is_replaced_or_deleted(
    train: Callable[..., Ended],
    tmp_path: Path,
    windows: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    """A run, the same resumed, one that is refused, a sweep, and a measurement that is written into the model."""
    assert train("hydra.run.dir=run", "sd.steps=3", "evaluate=2").code == 0
    assert train("resume=run", "trainer.max_epochs=2", defaults=False).code == 0
    assert train("hydra.run.dir=refused", "data.prompts=nowhere.txt").code == 1
    assert not (tmp_path / "refused").exists()
    assert train("-m", "seed=1,2", "hydra.sweep.dir=sweep").code == 0
    assert call(evaluate.main, ["run", "--count", "2"], monkeypatch, capsys).code == 0
    assert windows == []


@linux_only
def test_the_check_for_open_files_sees_files_and_maps(tmp_path: Path, windows: list[str]):
    (tmp_path / "a").write_bytes(b"x" * 10)
    (tmp_path / "b").write_bytes(b"x" * 10)
    mapped = np.memmap(tmp_path / "b", mode="r")
    with (tmp_path / "a").open("rb"):
        for name in "ab":
            with pytest.raises(PermissionError):
                (tmp_path / name).unlink()
    assert len(windows) == 2
    assert mapped.size == 10


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_whatever_is_printed_can_be(encoding: str, monkeypatch: pytest.MonkeyPatch):
    """Texts in any script, and names of files whose bytes are no text here."""
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    assert run_command(lambda: print("猫", "x", os.fsdecode(b"\xff"))) == 0
    sys.stdout.flush()
    said = written.getvalue().rstrip()
    assert said.startswith("猫 x ".encode() if encoding == "utf-8" else b"\\u732b x ")
    assert said.endswith(b"\xff")


def test_an_ascii_locale_and_captions_of_all_scripts(tmp_path: Path, caches: Path):
    """Captions in any script, in a folder of any name, where the locale knows ASCII only."""
    folder = tmp_path / "Bilder für 猫 (1)"
    folder.mkdir()
    (folder / "captions.txt").write_text("".join(f"猫 {k}, メイド {k}\n" for k in range(60)), encoding="utf-8")
    settings = ["data.size=20", "data.held_out=4", "data.batch_size=10", "trainer.max_epochs=1"]
    settings += [f"data.prompts='{folder}/captions.txt'", f"hydra.run.dir='{folder}/run'"]
    settings += [f"data.cache={caches}", "render=off", "evaluate=2", "sd.steps=3"]
    command = [sys.executable, "-m", "deproj.train", *settings]
    for said in ("The model: ", "nothing to do"):
        ended = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONUTF8": "0", "LC_ALL": "C"}, capture_output=True, timeout=280
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        assert said in ended.stdout.decode()
        assert "Bilder für 猫 (1)" in ended.stdout.decode()
    evaluation = json.loads((folder / "run" / "evaluation.json").read_text(encoding="utf-8"))
    assert all("猫" in prompt for prompt in evaluation["prompts"])


def test_a_run_in_a_folder_of_any_name(train: Callable[..., Ended], tmp_path: Path):
    assert train("hydra.run.dir='Läufe für 猫/(1), eins'").code == 0
    assert (tmp_path / "Läufe für 猫" / "(1), eins" / "result.json").exists()


def test_threads_wait_briefly_unless_the_user_has_said_how(monkeypatch: pytest.MonkeyPatch):
    for policy, asked, found in ((None, None, "20000"), (None, "5", "5"), ("active", None, None)):
        for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", asked)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        system.wait_briefly()
        assert os.environ.get("GOMP_SPINCOUNT") == found
