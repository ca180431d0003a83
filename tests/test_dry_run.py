"""``deproj.train --dry-run``: what it tells is what then happens, and it leaves nothing behind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended
from safetensors.torch import load_file

Train = Callable[..., Ended]


@pytest.mark.parametrize("keep", ["states", "tokens"])
def test_it_tells_what_then_happens(keep: str, train: Train, tmp_path: Path):
    own = ["data.cache=own", f"data.keep={keep}", "hydra.run.dir=run"]
    before = train("--dry-run", *own)
    assert before.code == 0, before.err
    assert list(tmp_path.iterdir()) == []
    assert "Samples: 60 to train on and 10 held out, 3 steps an epoch." in before.out
    assert before.out.count("would be made") == 2
    assert "Folder: run." in before.out
    assert re.search(r"Time: about \d+ seconds? an epoch", before.out)
    assert train(*own).code == 0
    for line in before.out.splitlines():
        if line.startswith("Cache of the"):
            folder, told = line.partition(": ")[2].split(", ")[:2]
            there = sum(path.stat().st_size for path in (tmp_path / folder).glob("*.bin"))
            assert told == f"{there / (1e6 if there >= 1e6 else 1e3):.1f} {'MB' if there >= 1e6 else 'kB'}"
    weights = load_file(tmp_path / "run" / "deprojector" / "model.safetensors")
    count = int(before.out.partition("Model: lstm, ")[2].partition(" parameters")[0].replace(",", ""))
    assert 0 < count <= sum(weight.numel() for weight in weights.values())
    assert "run is done" in train("--dry-run", *own).out
    more = train("--dry-run", "resume=run", "trainer.max_epochs=3", defaults=False)
    assert "at most 3 epochs, 1 of them behind it" in more.out
    assert more.out.count("is there already") == 2


def test_captions_are_read_and_choices_of_ones_own_found(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "captions.txt").write_text("".join(f"1girl, {word}\n" for word in "abcdefghijkl"), encoding="utf-8")
    (tmp_path / "conf" / "selection").mkdir(parents=True)
    (tmp_path / "conf" / "selection" / "mine.yaml").write_text("_target_: deproj.selection.AllTokens\n", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    ended = train("--dry-run", "--config-dir=conf", "selection=mine", "data.prompts=captions.txt")
    assert ended.code == 0, ended.err
    assert "12 captions" in ended.out
    assert "a new one in runs/" in ended.out
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-m", "seed=0,1"], "leave -m out"),
        (["experiment=recursive_input"], "experiment=recursive_input is a sweep"),
        (["--epochs", "3"], "typed without dashes: trainer.max_epochs=3"),
        (["seed=0,1"], "add -m"),
        (["epochs=3"], "trainer.max_epochs"),
        (["data.size=1.5"], "data.size is a whole number; got '1.5'."),
        (["data.size="], "data.size is a whole number; got ''."),
        (["data.split=half"], "data.split is a number; got 'half'."),
        (["trainer.progress=maybe"], "trainer.progress is true or false; got 'maybe'."),
        (["model.hidden=0"], "the model's hidden is a whole number, at least 1; got 0."),
        (["model.hidden=x"], "the model's hidden is a whole number, at least 1; got 'x'."),
        (["ünïcode=3"], "unknown setting 'ünïcode'"),
        (["--config-dir=nowhere"], "--config-dir: there is no folder nowhere."),
        (["data.prompts=nowhere.txt"], "no prompts file"),
        (["resume=nowhere"], "no run to resume"),
    ],
)
def test_mistakes_are_told_as_in_earnest(arguments: list[str], said: str, train: Train, tmp_path: Path):
    ended = train("--dry-run", *arguments)
    assert ended.code == 1
    assert said in ended.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("own", [["data.pictures=scenes"], ["objective.states_first=5", "data.variants=2"]])
def test_time_through_the_unet_is_tried_too(own: list[str], train: Train):
    ended = train("--dry-run", "objective=conditioning", "data.batch_size=4", *own)
    assert ended.code == 0, ended.err
    assert re.search(r"Time: about [\d.]+ (second|minute)s? an epoch", ended.out)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 second"), (42, "42 seconds"), (100, "1.7 minutes"), (1200, "20 minutes"), (7000, "1.9 hours")]
)
def test_seconds_as_a_person_says_them(seconds: float, said: str):
    from deproj.training.dry_run import span

    assert span(seconds) == said
