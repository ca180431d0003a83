"""Nothing that came from outside is executed, no path leaves its folder, no secret is written."""

import contextlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Ended, call
from hydra.utils import instantiate
from omegaconf import OmegaConf

from deproj.model.base import Deprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.process.errors import UserError

Train = Callable[..., Ended]


class Harm:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(self.path),))


def test_the_harm_is_real(tmp_path: Path):
    pickle.loads(pickle.dumps(Harm(tmp_path / "harm")))
    assert (tmp_path / "harm").exists()


@pytest.fixture
def run(train: Train, tmp_path: Path) -> Path:
    assert train("hydra.run.dir=run").code == 0
    return tmp_path / "run"


def test_a_checkpoint_is_not_unpickled(train: Train, run: Path, tmp_path: Path):
    torch.save({"state_dict": {}, "callbacks": Harm(tmp_path / "harm")}, run / "checkpoints" / "last.ckpt")
    ended = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 1
    assert "damaged" in ended.err
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_model_is_not_unpickled(name: str, run: Path, tmp_path: Path):
    (run / "deprojector" / "model.safetensors").unlink()
    torch.save(Harm(tmp_path / "harm"), run / "deprojector" / name)
    with pytest.raises(UserError):
        Deprojector.from_pretrained(run / "deprojector")
    assert not (tmp_path / "harm").exists()


def test_a_model_folder_names_no_class_of_its_own(run: Path):
    path = run / "deprojector" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"model_type": "os.system"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"os\.system"):
        Deprojector.from_pretrained(run / "deprojector")


@pytest.mark.parametrize("place", ["deproj.selection.AllTokens", "${oc.create:{_target_: HARM}}"])
def test_what_a_model_says_of_its_training_runs_nothing(place: str, run: Path, tmp_path: Path):
    """Hydra resolves interpolations when it builds, so that a class hides in a string."""
    harm = f"${{oc.create:{{_target_: pathlib.Path.touch, _args_: [{{_target_: pathlib.Path, _args_: [{tmp_path}/harm]}}]}}}}"
    path = run / "deprojector" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["provenance"]["selection"] = {"_target_": place.replace("HARM", "deproj.selection.AllTokens"), "words": harm}
    path.write_text(json.dumps(config), encoding="utf-8")
    with contextlib.suppress(UserError):
        DeprojectorPipeline.from_pretrained("pixel", run / "deprojector", device="cpu")
    assert not (tmp_path / "harm").exists()
    with contextlib.suppress(Exception):
        instantiate({"_target_": "deproj.selection.AllTokens", "words": harm})
    assert (tmp_path / "harm").exists(), "the harm is real"


def test_a_pipeline_is_not_unpickled(train: Train, world: Path, tmp_path: Path):
    for part in ("text_encoder/model", "unet/diffusion_pytorch_model"):
        (world / f"{part}.safetensors").unlink()
        torch.save(Harm(tmp_path / "harm"), world / (part.replace("/model", "/pytorch_model") + ".bin"))
    ended = train(f"sd.path={world}", f"sd.clip={world / 'clip'}", "render=1")
    assert ended.code == 1, ended.out
    assert "error: " in ended.err
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("place", ["selection", "feed", "model", "objective", "trainer", "data", "sd", "optimizer", "logger"])
def test_a_runs_config_builds_no_class_of_its_own(place: str, train: Train, run: Path, tmp_path: Path):
    config = OmegaConf.load(run / "config.yaml")
    OmegaConf.update(config, f"{place}.harm", {"_target_": "os.mkdir", "path": str(tmp_path / "harm")}, force_add=True)
    OmegaConf.save(config, run / "config.yaml")
    ended = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 1
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("command", ["evaluate", "report.__main__"])
def test_a_measured_run_builds_no_class_of_its_own(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    import importlib

    config = OmegaConf.load(run / "config.yaml")
    config.selection = {"_target_": "os.mkdir", "path": str(tmp_path / "harm")}
    OmegaConf.save(config, run / "config.yaml")
    ended = call(importlib.import_module(f"deproj.{command}").main, [str(run)], monkeypatch, capsys)
    assert ended.code == 1
    assert not (tmp_path / "harm").exists()


def test_interpolations_of_a_runs_config_read_no_environment(
    train: Train, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MY_SECRET", "hunter2")
    text = (run / "config.yaml").read_text(encoding="utf-8").replace("init_from: null", "init_from: ${oc.env:MY_SECRET}")
    (run / "config.yaml").write_text(text, encoding="utf-8")
    ended = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 1
    assert "hunter2" not in ended.out + ended.err


def test_no_secret_is_written(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    secret = "0123456789abcdef" * 2 + "01234567"
    for name in ("WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("WANDB_MODE", "offline")
    ended = train("-m", "seed=0", "logger=wandb", "hydra.sweep.dir=sweep")
    assert ended.code == 0, ended.err
    assert secret not in ended.out + ended.err
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
