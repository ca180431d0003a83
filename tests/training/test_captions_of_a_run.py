"""A run says what it read, remembers which captions it began with, and goes on with no others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Ended

Train = Callable[..., Ended]
PLAIN = ("data.split=0", "data.combine=0", "hydra.run.dir=run")


def write(path: Path, count: int = 90) -> None:
    path.parent.mkdir(exist_ok=True)
    rows = [f'"a picture of {n}, and things",{n}' for n in range(count)]
    path.write_text("\n".join(["caption,n", *rows, '" ",7', f'"{"word " * 90}",8']), encoding="utf-8")


def test_changed_captions_are_told(train: Train, tmp_path: Path):
    write(tmp_path / "c.csv")
    command = ("data.prompts=c.csv", *PLAIN)
    ended = train(*command)
    assert ended.code == 0, ended.err
    (said,) = [line for line in ended.out.splitlines() if "captions of" in line]
    assert said == "91 captions of c.csv (column caption), 1 empty left out, 1 cut to 77 tokens (the longest has 362)."
    assert json.loads((tmp_path / "run" / "captions.json").read_text(encoding="utf-8"))["said"] == said

    again = train(*command)
    assert again.code == 0
    assert "have changed" not in again.out
    write(tmp_path / "c.csv", 91)
    for arguments in (command, ("resume=run",)):
        ended = train(*arguments, defaults=arguments is command)
        assert ended.code == 0, ended.err
        assert "The captions have changed since" in ended.out
    ended = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 1
    assert "run began with 91 captions of c.csv" in ended.err
    assert "92 captions of c.csv" in ended.err
    assert len(ended.err.strip().splitlines()) == 2
    (tmp_path / "c.csv").unlink()
    assert "can't be read any more: no prompts file at c.csv" in train("resume=run", defaults=False).out
    write(tmp_path / "c.csv")
    ended = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 0, ended.err


def test_runs_without_the_newer_settings_go_on(train: Train, tmp_path: Path):
    """As versions before wrote them: no data.marks, no captions.json."""
    write(tmp_path / "c.csv")
    assert train("data.prompts=c.csv", "data.column=caption", *PLAIN).code == 0
    config = tmp_path / "run" / "config.yaml"
    content = config.read_text(encoding="utf-8")
    assert "  marks: keep\n" in content
    config.write_text(content.replace("  marks: keep\n", ""), encoding="utf-8")
    (tmp_path / "run" / "captions.json").unlink()
    assert "nothing to do" in train("data.prompts=c.csv", "data.column=caption", *PLAIN).out
    ended = train("resume=run", "trainer.max_epochs=2", defaults=False)
    assert ended.code == 0, ended.err
    assert (tmp_path / "run" / "captions.json").is_file()


@pytest.mark.parametrize("prompts", ["shards", "shards/*.csv"])
def test_shards_train(train: Train, tmp_path: Path, prompts: str):
    for name in "ab":
        write(tmp_path / "shards" / f"{name}.csv", 50)
    ended = train(f'data.prompts="{prompts}"', *PLAIN)
    assert ended.code == 0, ended.err
    assert f"102 captions of {prompts} (2 files) (column caption)" in ended.out


def test_marks_of_captions(train: Train, tmp_path: Path):
    (tmp_path / "m.txt").write_text("".join(f"((cat)) {n}, (hair:1.2)\n" for n in range(90)), encoding="utf-8")
    ended = train("data.prompts=m.txt", "data.marks=strip", *PLAIN)
    assert ended.code == 0, ended.err
    assert "90 with the web's marks, such as (hair:1.2), which are taken out." in ended.out
    ended = train("data.prompts=m.txt", "data.marks=drop", "hydra.run.dir=other")
    assert ended.code == 1
    assert "data.marks is keep or strip; got 'drop'" in ended.err


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "id,caption\n1,cat, maid\n", "a.csv, line 2: 3 fields under 2 names"),
        ("a.jsonl", '{"caption": 1}\n', "a.jsonl, line 1: the column 'caption' holds a number"),
        ("a.txt", "cat\n", "give more texts"),
    ],
)
def test_what_is_refused_makes_nothing(train: Train, tmp_path: Path, name: str, content: str, said: str):
    (tmp_path / name).write_text(content, encoding="utf-8")
    ended = train(f"data.prompts={name}", *PLAIN)
    assert ended.code == 1
    assert said in ended.err
    assert len(ended.err.strip().splitlines()) <= 2
    assert not (tmp_path / "run").exists()
