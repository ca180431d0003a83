"""What ``import deproj`` offers, and what its objects say of themselves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

import deproj
from deproj.model import Ensemble, LSTMDeprojector

Train = Callable[..., Ended]
SHIPPED = "all-batch"


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8").stdout


def test_the_import_waits_for_nothing():
    said = python(
        "import sys, time; begun = time.perf_counter(); import deproj; print(time.perf_counter() - begun);"
        "dir(deproj); print([name for name in ('torch', 'hydra', 'omegaconf') if name in sys.modules])"
    ).splitlines()
    assert float(said[0]) < 0.2
    assert said[1] == "[]"


def test_every_name_is_there_and_listed():
    for name in deproj._MODULES:
        assert getattr(deproj, name).__name__ == name
        assert name in dir(deproj)
    assert "__version__" in dir(deproj)
    with pytest.raises(AttributeError, match="no attribute 'Pipeline'"):
        deproj.Pipeline  # noqa: B018


def test_a_checker_knows_every_name():
    text = Path(deproj.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    for name, module in deproj._MODULES.items():
        assert f"from {module} import {name} as {name}\n" in text


def test_help_is_a_page(capsys: pytest.CaptureFixture[str]):
    help(deproj)
    said = capsys.readouterr().out
    assert 'deproj.DeprojectorPipeline.from_pretrained("best")' in said
    assert all(f"`{name}`" in said for name in deproj._MODULES)
    assert len(said.splitlines()) < 100


def test_expressions_read_as_they_are_written():
    assert repr(deproj.parse("cat, maid:1.2")) == "Expression('cat, maid:1.2')"
    assert repr(deproj.between("cat", "maid", 0.25)) == "Expression('cat:0.75, maid:0.25')"


def test_models_and_pipelines_say_what_they_are():
    model = deproj.load(SHIPPED)
    assert repr(model) == "LSTMDeprojector(all, batch, width 128, hidden 192, 331,072 parameters)"
    assert "\n" not in repr(Ensemble.of([model, model]))
    pipe = deproj.DeprojectorPipeline.from_pretrained(SHIPPED, device="cpu")
    assert repr(pipe) == f"DeprojectorPipeline(pixel, {model!r}, takes texts and pictures, on cpu)"


def test_the_world_is_found_where_the_model_knows_it(train: Train, tmp_path: Path):
    assert train("hydra.run.dir=run", "sd.guidance=2").code == 0
    pipe = deproj.DeprojectorPipeline.from_pretrained("run", device="cpu")
    assert (pipe.name, pipe.guidance) == ("pixel", 2), "the run's own settings"
    assert deproj.DeprojectorPipeline.from_pretrained(tmp_path / "run" / "deprojector", device="cpu").name == "pixel"
    assert deproj.DeprojectorPipeline.from_pretrained(deproj.load(SHIPPED), device="cpu").name == "pixel"
    model = LSTMDeprojector(LSTMDeprojector.config_class(width=8, hidden=8))
    with pytest.raises(deproj.UserError, match=r"doesn't say which Stable Diffusion.*from_pretrained\(sd, model\)"):
        deproj.DeprojectorPipeline.from_pretrained(model)


def test_runs_say_what_they_are(train: Train, tmp_path: Path):
    assert repr(deproj.RunFolder(tmp_path / "none")).endswith("none: no run)")
    assert train("hydra.run.dir=run").code == 0
    run = deproj.RunFolder(Path("run"))
    assert repr(run).startswith("RunFolder(run: eos_onward, recursive, 1 epoch, held-out loss ")
    run.result.unlink()
    assert repr(run) == "RunFolder(run: eos_onward, recursive, unfinished)"
    run.config.write_text("{", encoding="utf-8")
    assert repr(run) == "RunFolder(run: a run whose config.yaml can't be read)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((SHIPPED, "pixel"), r"swapped; the Stable Diffusion comes first: from_pretrained\('pixel', 'all-batch'\)"),
        (("runs/none", "pixel"), "swapped"),
        ((SHIPPED, "eos_onward-batch"), "is a deprojector, no Stable Diffusion"),
        (("pixel",), "name a deprojector"),
        ((), "name a deprojector"),
        ((None, "pixel"), "name a deprojector"),
    ],
)
def test_swapped_arguments_are_told(arguments: tuple[object, ...], said: str):
    with pytest.raises(deproj.UserError, match=said) as caught:
        deproj.DeprojectorPipeline.from_pretrained(*arguments)
    assert "\n" not in str(caught.value)
