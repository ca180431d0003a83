"""The training command, end to end on small data, and everything that a user can get wrong."""

import csv
import json
import re
import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import Ended, call
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from deproj.clip.encoder import TextEncoder
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMDeprojector
from deproj.model.mlp import MLPDeprojector
from deproj.settings.shipped import CONF

Train = Callable[..., Ended]

SELECTIONS = ["all", "words_eos", "words_eos_reversed", "eos_onward"]
FEEDS = ["batch", "recursive"]


def choices(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("group", ["selection", "feed", "model", "objective", "sd", "trainer", "logger", "experiment"])
def test_every_shipped_choice_composes(group: str):
    import deproj.train  # noqa: F401 - registers the resolver of the run's folder

    with initialize_config_dir(str(CONF), version_base="1.3"):
        for choice in choices(group):
            compose("config", [f"{group}={choice}"])


def test_groups_hold_what_the_design_names():
    assert choices("selection") == sorted(SELECTIONS)
    assert choices("feed") == sorted(FEEDS)
    assert {"pixel", "sd15"} == set(choices("sd"))
    assert {"csv", "wandb", "tensorboard"} == set(choices("logger"))


def run_folder(tmp_path: Path) -> Path:
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("feed", FEEDS)
def test_every_setting_trains(train: Train, tmp_path: Path, selection: str, feed: str, encoder: TextEncoder):
    ended = train(f"selection={selection}", f"feed={feed}")
    assert ended.code == 0, ended.err
    run = run_folder(tmp_path)
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.csv", "result.json", "checkpoints/best.ckpt", "checkpoints/last.ckpt"} <= names
    config = OmegaConf.load(run / "config.yaml")
    assert config.choices.selection == selection
    assert config.choices.feed == feed
    model = LSTMDeprojector.from_pretrained(run / "deprojector", encoder)
    assert model.provenance["selection"]["name"] == selection
    assert model.provenance["feed"]["name"] == feed
    assert model.generate(encoder.embed(["cat maid"])).shape == (1, 77, 128)
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert json.loads((run / "result.json").read_text(encoding="utf-8"))["val_loss"] == pytest.approx(min(losses))


def test_draws_the_benchmark_prompts(train: Train, tmp_path: Path):
    ended = train("render=1", "trainer.max_epochs=2")
    assert ended.code == 0, ended.err
    run = run_folder(tmp_path)
    sheets = sorted((run / "sheets").glob("*.png"))
    assert [sheet.name for sheet in sheets] == ["best.png", "epoch-001.png", "epoch-002.png"]
    assert str(sheets[0].relative_to(tmp_path)) in ended.out
    first, second = (Image.open(sheet) for sheet in sheets[1:])
    assert first.size == second.size
    top = (0, 0, first.width, 64 + 160)
    assert first.crop(top).tobytes() == second.crop(top).tobytes(), "the first row is the true states' each time"


def test_a_finished_run_is_measured(train: Train, tmp_path: Path):
    ended = train("evaluate=2", "precision=bf16", "trainer.gradient_clip_val=1", "sd.steps=4")
    assert ended.code == 0, ended.err
    run = run_folder(tmp_path)
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    assert evaluation["composed"]["conditioning_error"]["n"] == 2
    assert f"conditioning error {evaluation['composed']['conditioning_error']['value']:.3f}" in ended.out
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        (row,) = [row for row in csv.DictReader(file) if row.get("single/likeness")]
    assert float(row["single/likeness"]) == pytest.approx(evaluation["single"]["likeness"]["value"])


def test_a_run_ends_with_commands_that_work(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ended = train("hydra.run.dir=my run")
    assert ended.code == 0, ended.err
    commands = [shlex.split(line) for line in ended.out.splitlines() if line.startswith("  python -m ")]
    assert [command[2] for command in commands] == ["deproj.generate", "deproj.evaluate", "deproj.report"]
    short = {"deproj.generate": ["--sampler-steps", "1"], "deproj.evaluate": ["--count", "2"], "deproj.report": ["--seeds", "0"]}
    for _, _, program, *words in commands:
        module = import_module(program if program == "deproj.evaluate" else f"{program}.__main__")
        done = call(module.main, [*words, *short[program]], monkeypatch, capsys)
        assert done.code == 0, done.err
    assert "python -m" in train("hydra.run.dir=my run").out, "also where nothing is left to do"


def test_float32_stands_in_where_the_hardware_has_no_bfloat16(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": False, "avx2": True})
    half = train("precision=bf16", "trainer.accelerator=cpu", "hydra.run.dir=half")
    assert half.code == 0
    assert "float32 is used" in half.out
    assert train("precision=32", "trainer.accelerator=cpu", "hydra.run.dir=full").code == 0
    weights = [(tmp_path / name / "deprojector" / "model.safetensors").read_bytes() for name in ("half", "full")]
    assert weights[0] == weights[1]


def test_a_model_of_another_kind_trains(train: Train, tmp_path: Path, encoder: TextEncoder):
    assert train("model=mlp", "model.hidden=40").code == 0
    model = Deprojector.from_pretrained(run_folder(tmp_path) / "deprojector", encoder)
    assert isinstance(model, MLPDeprojector)
    embedding = encoder.embed(["cat maid"])
    assert torch.allclose(model.generate(embedding, places=9), model.generate(embedding)[:, :9], atol=1e-6)
    lstm, mlp = (kind.for_encoder(encoder) for kind in (LSTMDeprojector, MLPDeprojector))
    sizes = [sum(p.numel() for p in each.parameters() if p.requires_grad) for each in (lstm, mlp)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.03)


def test_pictures_are_drawn_every_n_epochs(train: Train, tmp_path: Path):
    assert train("render=2", "trainer.max_epochs=3").code == 0
    names = sorted(path.name for path in (run_folder(tmp_path) / "sheets").iterdir())
    assert names == ["best.png", "epoch-002.png"]


def test_same_seed_same_weights_and_pixels(train: Train, tmp_path: Path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        assert train("render=1", f"seed={seed}", f"hydra.run.dir={name}").code == 0
    weights = {name: load_file(tmp_path / name / "deprojector" / "model.safetensors") for name in "abc"}
    assert all(torch.equal(weights["a"][key], weights["b"][key]) for key in weights["a"])
    assert not torch.equal(weights["a"]["out_h.weight"], weights["c"]["out_h.weight"])
    pixels = [Image.open(tmp_path / name / "sheets" / "epoch-001.png").tobytes() for name in "ab"]
    assert pixels[0] == pixels[1]


def test_drawing_does_not_change_what_is_learnt(train: Train, tmp_path: Path):
    for name, render in (("drawn", "1"), ("not", "off")):
        assert train(f"render={render}", "trainer.max_epochs=2", f"hydra.run.dir={name}").code == 0
    weights = [load_file(tmp_path / name / "deprojector" / "model.safetensors") for name in ("drawn", "not")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_resume_goes_on_as_if_undisturbed(train: Train, tmp_path: Path):
    assert train("trainer.max_epochs=3", "hydra.run.dir=whole").code == 0
    assert train("trainer.max_epochs=2", "hydra.run.dir=part").code == 0
    ended = train("resume=part", "trainer.max_epochs=3", defaults=False)
    assert ended.code == 0, ended.err
    weights = [load_file(tmp_path / name / "deprojector" / "model.safetensors") for name in ("whole", "part")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    metrics = [(tmp_path / name / "metrics.csv").read_text(encoding="utf-8") for name in ("whole", "part")]
    assert metrics[0] == metrics[1], "the rows of before are kept"
    again = train("resume=part", defaults=False)
    assert again.code == 0
    assert "nothing to do" in again.out


def test_resume_keeps_the_runs_settings(train: Train, tmp_path: Path):
    assert train("selection=words_eos", "hydra.run.dir=part").code == 0
    for wrong in ("selection=all", "optimizer.learning_rate=0.5", "data.size=61"):
        ended = train("resume=part", wrong, defaults=False)
        assert ended.code == 1
        assert wrong.split("=")[1] in ended.err
        assert len(ended.err.strip().splitlines()) <= 2
    assert train("resume=nowhere", defaults=False).code == 1
    assert not (tmp_path / "nowhere").exists()


def test_damaged_checkpoint_is_refused(train: Train, tmp_path: Path):
    assert train("hydra.run.dir=part").code == 0
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-2000])
    ended = train("resume=part", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 1
    assert "last.ckpt is damaged" in ended.err
    assert (tmp_path / "part" / "deprojector" / "model.safetensors").exists(), "what was good stays"


def test_init_from_starts_from_the_weights(train: Train, tmp_path: Path):
    assert train("feed=batch", "hydra.run.dir=first").code == 0
    slow = ["optimizer.learning_rate=1e-12", "feed=recursive"]
    assert train("init_from=first", "hydra.run.dir=second", *slow).code == 0
    weights = [load_file(tmp_path / name / "deprojector" / "model.safetensors") for name in ("first", "second")]
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=1e-6) for key in weights[0])
    assert train("init_from=first/deprojector", "hydra.run.dir=third", *slow).code == 0
    for wrong, said in (
        ("selection=all", "same selection"),
        ("model.hidden=20", "hidden=20"),
        ("init_from=nowhere", "no deprojector"),
    ):
        ended = train("init_from=first", wrong) if "init" not in wrong else train(wrong)
        assert ended.code == 1
        assert said in ended.err


def test_prompts_from_a_file(train: Train, tmp_path: Path):
    (tmp_path / "texts.txt").write_text(
        "".join(f"a picture of {n} things\n" for n in range(80)) + "word " * 90 + "\n", encoding="utf-8"
    )
    ended = train("data.prompts=texts.txt", "data.split=0", "data.combine=0")
    assert ended.code == 0, ended.err
    assert "81 captions of texts.txt, 1 cut to 77 tokens" in ended.out
    assert re.search(
        r"warning: \d+ of \d+ captions that were looked at have words that the pixel world has never seen, as .*'picture'",
        ended.out,
    )


def test_tokens_instead_of_states(train: Train, tmp_path: Path):
    """What is learnt differs by the rounding of kept states to float16; a run may go on the other way."""
    for name, keep in (("a", "states"), ("b", "tokens")):
        assert train(f"data.keep={keep}", f"hydra.run.dir={name}", "precision=64").code == 0
    weights = [load_file(tmp_path / name / "deprojector" / "model.safetensors") for name in "ab"]
    assert all(torch.allclose(weights[0][key], weights[1][key], atol=2e-3) for key in weights[0])
    losses = [json.loads((tmp_path / name / "result.json").read_text(encoding="utf-8"))["val_loss"] for name in "ab"]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert train("resume=b", "data.keep=states", "trainer.max_epochs=2", defaults=False).code == 0


def test_without_cuda_the_real_one_draws_nothing_and_says_why(train: Train, tmp_path: Path):
    ended = train("sd=sd15", "sd.path=pixel", "sd.clip=pixel", "data.prompts=grammar", "render=1", "trainer.accelerator=cpu")
    assert ended.code == 0, ended.err
    assert [line for line in ended.out.splitlines() if "Drawing nothing" in line and "no CUDA" in line]
    assert not (run_folder(tmp_path) / "sheets").exists()


def test_without_clip_there_is_no_projection(train: Train, tmp_path: Path, encoder: TextEncoder):
    assert train("sd.clip=null").code == 0
    model = LSTMDeprojector.from_pretrained(run_folder(tmp_path) / "deprojector", encoder)
    assert model.deprojection is None


def test_a_loss_that_becomes_nan_stops_the_run(train: Train, tmp_path: Path):
    ended = train("optimizer.learning_rate=1e30")
    assert ended.code == 1
    assert "the loss became" in ended.err
    assert "at step" in ended.err


def test_stops_when_the_held_out_loss_no_longer_falls(train: Train, tmp_path: Path):
    assert train("optimizer.learning_rate=1e-30", "trainer.max_epochs=30", "trainer.patience=2").code == 0
    run = run_folder(tmp_path)
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    assert result["stopped_early"]
    with (run / "metrics.csv").open(encoding="utf-8") as file:
        losses = [float(row["val/loss"]) for row in csv.DictReader(file) if row["val/loss"]]
    assert len(losses) == result["epochs"] < 30
    assert min(losses) == pytest.approx(result["val_loss"])
    assert min(losses[-2:]) >= min(losses), "two epochs without a better one"


def test_a_moved_run_keeps_its_best(train: Train, tmp_path: Path):
    assert train("hydra.run.dir=here", "trainer.max_epochs=2").code == 0
    (tmp_path / "here").rename(tmp_path / "there")
    before = json.loads((tmp_path / "there" / "result.json").read_text(encoding="utf-8"))
    ended = train("resume=there", "trainer.max_epochs=3", defaults=False)
    assert ended.code == 0, ended.err
    after = json.loads((tmp_path / "there" / "result.json").read_text(encoding="utf-8"))
    assert after["epochs"] == 3
    assert after["val_loss"] <= before["val_loss"]
    assert not (tmp_path / "here").exists()


def test_config_of_a_run_builds_no_foreign_class(train: Train, tmp_path: Path):
    assert train("hydra.run.dir=part").code == 0
    path = tmp_path / "part" / "config.yaml"
    config = OmegaConf.load(path)
    config.selection.words = {"_target_": "pathlib.Path.touch", "self": str(tmp_path / "harm")}
    OmegaConf.save(config, path)
    ended = train("resume=part", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 1
    assert "none of ours" in ended.err
    assert not (tmp_path / "harm").exists()


PLUGIN = '''
from dataclasses import dataclass
from deproj.selection import Plan, TokenSelection
from deproj.feed import FeedMode, Recursive

@dataclass(frozen=True)
class EverySecond(TokenSelection):
    """Every second state."""
    def plan(self, place, length):
        return Plan(place, place % 2 == 1)

class Twice(FeedMode):
    def __call__(self, model, embedding, target):
        return Recursive()(model, embedding, target)
'''


@pytest.mark.parametrize("path", ["plain/run-1_a.b", "jürgen/プロ", "x (old)", "a=b,c", "it's", "#1 & ~[2]", 'a"b'])
def test_what_is_to_be_typed_is_read_back(path: str):
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser

    from deproj.settings.messages import readable, typed

    argument = readable(*shlex.split(typed("resume", path)))
    assert OverridesParser.create().parse_override(argument).value() == path


def test_captions_of_a_word_each_are_trained_on_without_measuring(train: Train, tmp_path: Path):
    (tmp_path / "tags.txt").write_text("".join(f"tag{n}\n" for n in range(100)), encoding="utf-8")
    ended = train("data.prompts=tags.txt", "data.split=0", "evaluate=10", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    assert "The run won't be measured" in ended.out
    assert (tmp_path / "run" / "result.json").exists()
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_a_selection_and_a_feed_of_ones_own(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine.py").write_text(PLUGIN, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for group, name, kind in (("selection", "every_second", "EverySecond"), ("feed", "twice", "Twice")):
        (tmp_path / "conf" / group).mkdir(parents=True)
        (tmp_path / "conf" / group / f"{name}.yaml").write_text(f"_target_: mine.{kind}\n", encoding="utf-8")
    own = [f"--config-dir={tmp_path / 'conf'}", "selection=every_second", "feed=twice"]
    ended = train(*own, "hydra.run.dir=mine")
    assert ended.code == 0, ended.err
    assert OmegaConf.load(tmp_path / "mine" / "config.yaml").choices.selection == "every_second"
    card = (tmp_path / "mine" / "deprojector" / "README.md").read_text(encoding="utf-8")
    assert "python -m deproj.train --config-dir=YOURS selection=every_second feed=twice " in card
    assert "data.size=" in card, "and what else differs from the defaults"
    assert str(tmp_path) not in card
    # a config read back builds our own classes only, others when they are named again
    ended = train("resume=mine", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 1
    assert "name it on the command line too: selection=every_second" in ended.err
    assert train(*own, "resume=mine", "trainer.max_epochs=2", defaults=False).code == 0
    sys.modules.pop("mine")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["selection=words"], ["selection=words", "all, eos_onward, words_eos, words_eos_reversed"]),
        (["feed=teacher"], ["feed=teacher", "batch, recursive"]),
        (["trainer.max_epoch=3"], ["trainer.max_epochs"]),
        (["+trainer.max_epoch=3"], ["trainer.max_epochs"]),
        (["+sead=3"], ["seed"]),
        (["sede=3"], ["seed"]),
        (["epochs=3"], ["did you mean 'trainer.max_epochs'?"]),
        (["+epochs=3"], ["did you mean 'trainer.max_epochs'?"]),
        (["max_epochs=3"], ["did you mean 'trainer.max_epochs'?"]),
        (["--max_epochs", "3"], ["typed without dashes: trainer.max_epochs=3."]),
        (["--lr=3"], ["typed without dashes: optimizer.learning_rate=3."]),
        (["--wandb"], ["typed without dashes: logger=wandb."]),
        (["--foo"], ["there is no --foo"]),
        (["logger.project=x"], ["logger.project is a setting of logger=wandb alone; choose that too."]),
        (["objective.pool=2"], ["objective=attention or objective=conditioning"]),
        (["lr=1"], ["did you mean 'optimizer.learning_rate'?"]),
        (["batch_size=3"], ["did you mean 'data.batch_size'?"]),
        (["steps=3"], ["did you mean 'trainer.max_epochs' or 'sd.steps'?"]),
        (["wandb=true"], ["did you mean 'logger=wandb'?"]),
        (["hydra.run.dirr=x"], ["did you mean 'hydra.run.dir'?"]),
        (["colour=red"], ["--help lists all"]),
        (["trainer.max_epochs=many"], ["trainer.max_epochs", "many"]),
        (["trainer.max_epochs=0"], ["at least 1"]),
        (["trainer.accelerator=abacus"], ["abacus"]),
        (["optimizer.learning_rate=0"], ["above 0"]),
        (["render=sometimes"], ["sometimes"]),
        (["precision=16"], ["precision is 32, 64 or bf16; got 16"]),
        (["evaluate=1"], ["evaluate is a number of prompts", "1"]),
        (["trainer.cuda_graphs=true"], ["trainer.cuda_graphs", "no CUDA"]),
        (["seed=abc"], ["seed is a whole number"]),
        (["seed=-1"], ["seed is a whole number"]),
        (["data.seed=null"], ["data.seed is a whole number"]),
        (["~feed"], ["feed must be chosen"]),
        (["trainer.gradient_clip_val=0"], ["above 0"]),
        (["data.split=nan"], ["shares"]),
        (["hydra.run.dir=/dev/null/x"], ["Not a directory"]),
        (["data.batch_size=0"], ["data.batch_size"]),
        (["data.split=0.9"], ["shares"]),
        (["data.prompts=nowhere.txt"], ["no prompts file"]),
        (["sd=sd15", "sd.path=pixel", "sd.clip=pixel"], ["data.prompts"]),
        (["sd.path=/nowhere"], ["no pipeline"]),
        (["sd.clip=/nowhere"], ["no CLIP"]),
        (["+selection.word=3"], ["selection"]),
        (["selection._target_=deproj.feed.Batch"], ["TokenSelection"]),
        (["model.h0_added=sometimes"], ["h0_added"]),
        (["model.hidden=-1"], ["at least 1"]),
        (["logger.kind=paper"], ["csv, wandb or tensorboard"]),
        (["experiment=nothing"], ["experiment=nothing", "first"]),
        (["selection"], ["selection"]),
    ],
)
def test_mistakes_get_a_line_and_leave_nothing(train: Train, tmp_path: Path, arguments: list[str], said: list[str]):
    ended = train(*arguments)
    assert ended.code == 1
    assert len(ended.err.strip().splitlines()) <= 2, ended.err
    assert "Traceback" not in ended.err
    assert "provider" not in ended.err, "Hydra's inner workings"
    for words in said:
        assert words in ended.err
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_fewer_epochs_do_not_stay(train: Train, tmp_path: Path):
    assert train("render=1", "sd.steps=2", "hydra.run.dir=run").code == 0
    shown = [tmp_path / "run" / name for name in ("sheets/best.png", "deprojector/sheet.png")]
    assert all(path.exists() for path in shown)
    assert train("resume=run", "render=off", "trainer.max_epochs=2", defaults=False).code == 0
    assert not any(path.exists() for path in shown)
    assert "sheet.png" not in (tmp_path / "run" / "deprojector" / "README.md").read_text(encoding="utf-8")
