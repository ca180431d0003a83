"""The wheel, installed where there is no checkout, does what the checkout does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import hydra
import pytest

import deproj
from deproj.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]
TINY = ("data.size=60", "data.held_out=10", "data.batch_size=20", "trainer.max_epochs=1", "sd.steps=3", "evaluate=2")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a venv with the wheel of the source archive; all else it takes from the tests' environment."""
    top = tmp_path_factory.mktemp("installed")
    source = top / "source"
    for name in ("deproj", "conf", "integrations"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "requirements.lock"):
        shutil.copy(ROOT / name, source)
    make = [sys.executable, "-c", "import setuptools.build_meta as build; build.build_sdist('..')"]
    subprocess.run(make, cwd=source, check=True, timeout=250, capture_output=True)
    (packed,) = top.glob("*.tar.gz")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = ("wheel", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(top), str(packed))
    subprocess.run([*pip, *made], check=True, timeout=250)
    venv.create(top / "venv", with_pip=False)
    scheme = {"base": str(top / "venv"), "platbase": str(top / "venv")}
    site = Path(sysconfig.get_path("purelib", "venv", vars=scheme))
    (site / "tests.pth").write_text(f"{Path(hydra.__file__).parents[1]}\n", encoding="utf-8")
    (wheel,) = top.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True, timeout=250)
    shutil.rmtree(source)
    return Path(sysconfig.get_path("scripts", "venv", vars=scheme)) / ("python.exe" if os.name == "nt" else "python")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def run(python: Path, folder: Path) -> Callable[..., str]:
    """Runs Python in the empty folder, and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def command(*arguments: str) -> str:
        ended = subprocess.run(
            [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=280
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
        return ended.stdout

    return command


def test_it_is_the_installed_one_and_knows_its_version(run: Callable[..., str], python: Path):
    said = run("-c", "import deproj, importlib.metadata as m; print(deproj.__file__); print(m.version('deproj'))").split()
    assert Path(said[0]).is_relative_to(python.parents[1])
    assert said[1] == deproj.__version__
    package = Path(said[0]).parent
    assert (package / "py.typed").exists()
    assert (package / "conf" / "config.yaml").exists()
    assert next(package.parent.glob("deproj-*.dist-info/licenses/LICENSE")).read_text(encoding="utf-8").startswith("MIT")


def test_it_brings_comfyuis_nodes(run: Callable[..., str]):
    said = run("-c", "import deproj; print(deproj.__path__[0])").strip()
    there = {path.name for path in (Path(said) / "comfyui").iterdir()} - {"__pycache__"}
    ours = {path.name for path in (ROOT / "integrations" / "comfyui").iterdir()} - {"__pycache__"}
    assert there == ours >= {"__init__.py", "nodes.py", "README.md", "example.json"}


def test_it_lists_its_commands(run: Callable[..., str]):
    listed = run("-m", "deproj")
    assert all(f"  {name} " in listed for name in COMMANDS)
    assert run("-m", "deproj", "--version").strip() == deproj.__version__


def test_every_command_has_a_line_and_a_main():
    modules = {path for path in (ROOT / "deproj").glob("*.py") if "__main__" in path.read_text(encoding="utf-8")}
    packages = {path.parent.name for path in (ROOT / "deproj").glob("*/__main__.py")}
    assert {path.stem for path in modules} - {"__main__"} | packages == set(COMMANDS)
    for name, (module, about) in COMMANDS.items():
        assert callable(import_module(module).main), name
        assert "\n" not in about


def test_a_command_that_there_is_not_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from deproj.__main__ import main

    monkeypatch.setattr("sys.argv", ["deproj", "trian"])
    assert main() == 2
    assert "there is no command 'trian'; there are: train, runs" in (said := capsys.readouterr().err)
    assert said.rstrip().endswith("Did you mean train?")
    monkeypatch.setattr("sys.argv", ["deproj", "-V"])
    assert main() == 0
    assert capsys.readouterr().out.strip() == deproj.__version__


def test_it_trains_draws_measures_and_compares(run: Callable[..., str], folder: Path):
    own = folder / "own" / "selection"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("_target_: deproj.selection.WordsEos\n", encoding="utf-8")
    run("-m", "deproj", "train", "--config-dir=own", "selection=mine", "hydra.run.dir=run", *TINY)
    run("-m", "deproj.train", "-m", "seed=1,2", "hydra.sweep.dir=sweep", "render=off", *TINY[:-1], "evaluate=0")
    run("-m", "deproj.generate", "run", "cat, maid", "--sampler-steps", "3", "--compare")
    run("-m", "deproj.evaluate", "run", "--count", "2")
    run("-m", "deproj.report", "run", "--seeds", "1")
    use = (
        "from deproj.pipeline import DeprojectorPipeline\n"
        "pipe = DeprojectorPipeline.from_pretrained('pixel', 'all-batch')\n"
        "assert pipe('cat, maid', num_inference_steps=2).images[0].size == (256, 256)\n"
        "import pathlib, json; print(json.dumps(sorted(path.as_posix() for path in pathlib.Path().glob('*/*'))))"
    )
    there = json.loads(run("-c", use))
    assert {"run/evaluation.json", "run/deprojector", "sweep/sweep.csv", "pictures/sheet.png", "report/index.html"} <= set(there)


def test_every_folder_is_in_the_package():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(content["tool"]["setuptools"]["packages"])
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "deproj").rglob("__init__.py")}
    assert listed == there | {"deproj.conf", "deproj.comfyui"}


def test_every_extra_that_a_message_names_is_there():
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = set(content["project"]["optional-dependencies"])
    for path in (ROOT / "deproj").rglob("*.py"):
        for part in path.read_text(encoding="utf-8").split("deproj[")[1:]:
            assert set(part.partition("]")[0].split(",")) <= extras, path


def test_the_version_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {deproj.__version__}\n" in citation
    assert f"\n## {deproj.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
