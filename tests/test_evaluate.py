"""The evaluation command: the same numbers twice, baselines by the same code, and mistakes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended, call

from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector
from deproj.model.combine import Ensemble
from deproj.model.lstm import LSTMDeprojector
from deproj.pixel import WEIGHTS

Train = Callable[..., Ended]
Evaluate = Callable[..., Ended]


@pytest.fixture
def evaluate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Evaluate:
    from deproj.evaluate import main

    return lambda *arguments: call(main, list(arguments), monkeypatch, capsys)


@pytest.fixture
def trained(train: Train, tmp_path: Path) -> Path:
    assert train("sd.steps=3", "hydra.run.dir=run").code == 0
    return tmp_path / "run"


def test_the_same_numbers_twice_and_baselines_beside_them(trained: Path, tmp_path: Path, evaluate: Evaluate):
    ended = evaluate("run", "--count", "3")
    assert ended.code == 0, ended.err
    first = (trained / "evaluation.json").read_bytes()
    result = json.loads(first)
    assert f"{result['composed']['conditioning_error']['value']:.3f}" in ended.out
    assert "3 single" in ended.out
    assert evaluate("run", "--count", "3").code == 0
    assert (trained / "evaluation.json").read_bytes() == first

    assert evaluate("run", "--count", "3", "--compose-mean").code == 0
    mean = json.loads((trained / "evaluation-mean.json").read_text(encoding="utf-8"))
    assert mean["single"] == result["single"]
    assert mean["composed"]["conditioning_error"] != result["composed"]["conditioning_error"]

    for selection in ("all", "eos_onward"):
        ended = evaluate("--baseline", "ridge", "--selection", selection, "run", "--count", "3")
        assert ended.code == 0, ended.err
    ridge = json.loads((tmp_path / "runs" / "baseline-ridge-eos_onward" / "evaluation.json").read_text(encoding="utf-8"))
    assert ridge["prompts"] == result["prompts"]
    assert ridge["composed"].keys() == result["composed"].keys()
    about = json.loads((tmp_path / "runs" / "baseline-ridge-all" / "baseline.json").read_text(encoding="utf-8"))
    assert about["choices"]["selection"] == "all"


def test_an_exported_combination_is_measured_like_a_run(encoder: TextEncoder, tmp_path: Path, evaluate: Evaluate, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Ensemble.of([Deprojector.from_pretrained(f"eos_onward-{feed}", encoder) for feed in ("batch", "recursive")]).save_pretrained(
        "both"
    )
    LSTMDeprojector.for_encoder(encoder).save_pretrained("unknown")
    ended = evaluate("both", "--count", "2")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "both" / "evaluation.json").read_text(encoding="utf-8"))
    assert result["single"]["mse_padding"]["value"] < 0.2, "put back in the order that its members learnt"
    assert f"| fidelity | {result['single']['fidelity']['value']:.3f}" in (tmp_path / "both" / "README.md").read_text(
        encoding="utf-8"
    )
    assert Deprojector.from_pretrained("both", encoder).kind == "ensemble"
    ended = evaluate("unknown", "--count", "2")
    assert ended.code == 1
    assert "doesn't say in which order" in ended.err


def test_a_shipped_model_is_measured_by_its_name(tmp_path: Path, evaluate: Evaluate, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = evaluate("all-batch", "eos_onward-batch", "--count", "2")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "runs" / "evaluation-all-batch" / "evaluation.json").read_text(encoding="utf-8"))
    assert f"{result['composed']['fidelity']['value']:.3f}" in ended.out
    assert ended.out.splitlines()[-1] == "* a region that the selection doesn't train", "the words of EOS onward"
    assert "*" not in evaluate("all-batch", "--count", "2").out
    assert evaluate("all-batch", "--count", "2", "--out", "x").code == 1


def test_a_model_of_another_pipeline_is_measured_on_its_captions(tmp_path: Path, evaluate: Evaluate, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.txt").write_text(
        "".join(f"1girl {hair} hair {n}\n" for hair in ("red", "blue") for n in range(100)), encoding="utf-8"
    )
    ended = evaluate("all-batch", "--sd", str(WEIGHTS), "--captions", "c.txt", "--count", "2")
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "runs" / "evaluation-all-batch" / "evaluation.json").read_text(encoding="utf-8"))
    assert all(" hair" in prompt for prompt in result["prompts"])
    assert "fidelity" not in result["single"], "which is the pixel world's"
    (tmp_path / "tags.txt").write_text("".join(f"tag{n}\n" for n in range(40)), encoding="utf-8")
    for arguments, said in (
        (["--sd", str(WEIGHTS)], "take both --sd and --captions"),
        (["--captions", "c.txt"], "take both --sd and --captions"),
        (["--sd", str(WEIGHTS), "--captions", "tags.txt"], "two held-out prompts or more that a comma or a space divides"),
        (["--sd", str(WEIGHTS), "--captions", "c.txt", "--score-clip", "/nowhere"], "no CLIP at '/nowhere'"),
    ):
        ended = evaluate("all-batch", *arguments, "--count", "2")
        assert ended.code == 1, arguments
        assert said in ended.err, ended.err


def test_prompts_of_ones_own(trained: Path, tmp_path: Path, evaluate: Evaluate):
    (tmp_path / "p.txt").write_text("1girl, red hair\n1girl, cat ears, green eye, in forest\n", encoding="utf-8")
    ended = evaluate("run", "--prompts", "p.txt")
    assert ended.code == 1
    assert "of the 2 prompts of p.txt are among the training prompts" in ended.err


def test_a_sweep_is_measured_by_its_folder(trained: Path, tmp_path: Path, evaluate: Evaluate):
    folder = tmp_path / "sweeps" / "mine"
    for name in ("0-seed=0", "1-seed=1", "2-seed=2"):
        shutil.copytree(trained, folder / name)
    (folder / "2-seed=2" / "result.json").unlink()
    ended = evaluate("sweeps/mine", "--count", "2")
    assert ended.code == 0, ended.err
    measured = sorted(path.parent.name for path in folder.rglob("evaluation.json"))
    assert measured == ["0-seed=0", "1-seed=1"], "those that are done"
    for path in folder.glob("*/result.json"):
        path.unlink()
    assert "none of the 3 runs in" in evaluate("sweeps/mine", "--count", "2").err


def test_mistakes(trained: Path, tmp_path: Path, evaluate: Evaluate):
    for name in ("bare", "foreign", "broken"):
        shutil.copytree(trained, tmp_path / name)
    shutil.rmtree(tmp_path / "bare" / "deprojector")
    config = (tmp_path / "foreign" / "config.yaml").read_text(encoding="utf-8")
    (tmp_path / "foreign" / "config.yaml").write_text(
        config.replace("deproj.selection.EosOnward", "subprocess.Popen", 1), encoding="utf-8"
    )
    (tmp_path / "broken" / "config.yaml").write_text("seed: [", encoding="utf-8")
    for arguments, said in (
        (["nowhere"], "nowhere is no deprojector: give a run's folder"),
        (["run", "--score-clip", "openai/clip"], "leave --score-clip out"),
        (["bare"], "no deprojector"),
        (["foreign"], "--trust subprocess.Popen"),
        (["broken"], "not YAML"),
        ([], "name one run or more, or --baseline"),
        (["run", "--count", "1"], "--count"),
        (["run", "--prompts", "nowhere.txt"], "no prompts file at nowhere.txt"),
        (["run", "--sd", "pixel"], "--sd is for models without a run"),
        (["run", "--selection", "all"], "--selection and --out are for a --baseline"),
        (["--baseline", "mean", "--selection", "words_eos", "run"], "--selection all"),
        (["--baseline", "mean", "--selection", "words", "run"], "unknown selection=words"),
    ):
        ended = evaluate(*arguments)
        assert ended.code == 1, arguments
        assert said in ended.err, ended.err
        assert len(ended.err.strip().splitlines()) <= 2
    assert not (trained / "evaluation.json").exists()
    assert not (tmp_path / "runs").exists()
