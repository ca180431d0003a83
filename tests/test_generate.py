"""The command that draws: real files from a real model, the same ones every time, and mistakes told in a line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Ended, call
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from deproj.clip.distance import EmbeddingDistance
from deproj.clip.encoder import TextEncoder
from deproj.draw.stamp import Stamp
from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.pipeline import DeprojectorPipeline
from deproj.pixel.scenes import draw, sample

Generate = Callable[..., Ended]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, encoder: TextEncoder, distance: EmbeddingDistance) -> Path:
    """An untrained model."""
    torch.manual_seed(0)
    model = LSTMDeprojector.for_encoder(encoder)
    model.distance = distance
    model.provenance["selection"] = {"_target_": "deproj.selection.EosOnward", "name": "eos_onward"}
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def generate(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Generate:
    """Runs the command on the untrained model, with few steps, in an empty folder that holds one picture."""
    from deproj.generate.__main__ import main

    monkeypatch.chdir(tmp_path)
    Image.fromarray(draw(sample(1, np.random.default_rng(5)))[0]).save("my photo.png")
    few = ["--sampler-steps", "2", "--device", "cpu"]
    return lambda *arguments, model=exported: call(main, [str(model), *few, *map(str, arguments)], monkeypatch, capsys)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_draws_prompts_and_pictures(generate: Generate, tmp_path: Path):
    (tmp_path / "prompts.txt").write_text("1girl, red hair:1.2, -black skirt\n\n<my photo>, red hair\n", encoding="utf-8")
    arguments = ["cat, maid", "--file", "prompts.txt", "--image", "my photo.png", "--count", "2", "--seed", "3"]
    ended = generate(*arguments, "--out", "a")
    assert ended.code == 0, ended.err
    assert names(tmp_path / "a") == sorted(
        f"00{number}-{slug}-{seed}.png"
        for number, slug in ((1, "cat-maid"), (2, "1girl-red-hair-1-2-black-skirt"), (3, "my-photo-red-hair"))
        for seed in (3, 4)
    )
    assert ended.out == "Wrote 6 pictures to a.\n"
    assert "warning" not in ended.err
    with Image.open(tmp_path / "a" / "003-my-photo-red-hair-4.png") as image:
        assert image.size == (256, 256)
        assert image.text["parameters"].startswith("<my photo>, red hair\nSteps: 2, Sampler: DPM++ 2M, CFG")
    made_of = Stamp.of(tmp_path / "a" / "003-my-photo-red-hair-4.png")
    assert (made_of.prompt, made_of.seed, made_of.strength) == ("<my photo>, red hair", 4, 1.0)
    assert (made_of.sd, made_of.width, made_of.height) == ("pixel", 32, 32)

    assert generate(*arguments, "--out", "b").code == 0
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    files = {(tmp_path / "a" / name).read_bytes() for name in names(tmp_path / "a")}
    assert len(files) == 6, "every prompt and seed has a picture of its own"


def test_a_picture_is_drawn_again_by_what_it_says(generate: Generate, tmp_path: Path, exported: Path):
    options = ["--seed", "7", "--strength", "0.5", "--guidance", "2", "--negative", "cat", "--out", "one"]
    assert generate("1girl, red hair", *options).code == 0
    assert generate("--between", "1girl", "1boy", "--steps", "4", "--out", "way").code == 0
    for path in (tmp_path / "way" / "strip-02.png", tmp_path / "one" / "001-1girl-red-hair.png"):
        ended = generate("--again", path, "--out", f"again-{path.stem}")
        assert ended.code == 0, ended.err
        (again,) = (tmp_path / f"again-{path.stem}").iterdir()
        with Image.open(path) as before, Image.open(again) as after:
            difference = np.asarray(before).astype(int) - np.asarray(after)
        assert np.abs(difference).max() <= 1, "but for rounding: it was drawn beside others"
        assert Stamp.of(again) == Stamp.of(path)
    assert generate("--again", path, "--strength", "0.25", "--out", "other").code == 0
    assert Stamp.of(tmp_path / "other" / again.name) == replace(Stamp.of(path), strength=0.25), "all else stays"
    Image.new("RGB", (32, 32)).save(tmp_path / "blank.png")
    mistakes = [
        (["--again", "blank.png"], "blank.png doesn't say what it was made of"),
        (["--again", "missing.png"], "there is no picture missing.png"),
        (["--again", tmp_path / "way" / "strip.png"], "shows several pictures, which each have a file of their own, as strip-01"),
        (["cat", "--again", path], "--again takes its prompt from the picture; leave prompts"),
    ]
    for arguments, said in mistakes:
        ended = generate(*arguments)
        assert ended.code == 1
        assert said in ended.err
    ended = generate("--again", path, model="all-batch")
    assert "is not the model that drew" in ended.err
    assert "leave 'cat, maid' out, which is no model" in generate("--again", path, model="cat, maid").err


def test_a_model_that_is_elsewhere_now_is_told(
    generate: Generate, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from deproj.generate.__main__ import main

    shutil.copytree(exported, tmp_path / "mine")
    assert generate("cat", "--out", "one", model="mine").code == 0
    (tmp_path / "mine").rename(tmp_path / "yours")
    ended = call(main, ["--again", "one/001-cat.png"], monkeypatch, capsys)
    assert "mine, which drew one/001-cat.png, isn't here; name it where it is now" in ended.err
    assert generate("--again", "one/001-cat.png", "--out", "again", model="yours").code == 0


def test_what_is_given_beside_again_takes_the_place_of_what_was(generate: Generate, tmp_path: Path):
    assert generate("1girl", "--negative", "cat", "--out", "one").code == 0
    path = tmp_path / "one" / "001-1girl.png"
    ended = generate("--again", path, "--seed", "5", "--count", "2", "--negative", "", "--out", "varied")
    assert ended.code == 0, ended.err
    assert names(tmp_path / "varied") == ["001-1girl-5.png", "001-1girl-6.png"]
    assert Stamp.of(tmp_path / "varied" / "001-1girl-5.png") == replace(Stamp.of(path), seed=5, negative="")


def test_a_picture_of_a_picture_is_drawn_again_from_that_one(generate: Generate, tmp_path: Path):
    assert generate("<my photo>, red hair", "--image", "my photo.png", "--out", "one").code == 0
    (path,) = (tmp_path / "one").iterdir()
    assert "hand it over, --image PATH/my photo.png" in generate("--again", path).err
    assert generate("--again", path, "--image", "my photo.png", "--out", "again").code == 0
    assert Stamp.of(tmp_path / "again" / path.name) == Stamp.of(path)
    assert generate("cat", "--image", "my photo.png", "--out", "two").code == 0
    assert Stamp.of(tmp_path / "two" / "001-cat.png").pictures == {}, "which it doesn't call"
    Image.new("RGB", (32, 32)).save("my photo.png")
    assert "<my photo> is another one" in generate("--again", path, "--image", "my photo.png").err


def test_a_model_among_the_prompts_is_told(generate: Generate):
    assert (
        "the model stands first, then prompts: python -m deproj.generate best 'cat, maid'"
        in generate("best", model="cat, maid").err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--steps", "5"], "--steps are the pictures of a strip, which --between draws"),
        (["--guidance", "0"], "--guidance is finite and at least 1"),
        (["--guidance", "nan"], "--guidance is finite and at least 1"),
        (["--sampler-steps", "0"], "--sampler-steps is a whole number, at least 1; got 0"),
    ],
)
def test_options_that_mean_nothing_here_are_refused(generate: Generate, arguments: list[str], said: str):
    ended = generate("cat", *arguments)
    assert (ended.code, ended.err.startswith("error: " + said)) == (1, True), ended.err


def test_an_empty_folder_is_no_folder(generate: Generate):
    assert "it is empty; name a path" in generate("cat", "--out", "").err


def test_nothing_is_left_of_what_was_not_drawn(generate: Generate, tmp_path: Path):
    assert "no picture is named" in generate("<missing>", "--out", "new/pictures").err
    assert generate("cat", "--out", "new/pictures", model="runs/none such").code == 1
    assert not (tmp_path / "new").exists()


def test_states_in_the_place_of_others_are_told(generate: Generate, tmp_path: Path):
    for _ in range(2):
        ended = generate("cat", "--save-conditioning", "states.safetensors")
    assert "to states.safetensors, in the place of those that were there." in ended.out


def test_pictures_of_before_are_kept(generate: Generate, tmp_path: Path):
    for number in (1, 2, 3):
        ended = generate("cat", "--compare", "--seed", number, "--out", "out")
        assert ended.code == 0, ended.err
    assert names(tmp_path / "out") == sorted(f"{name}{end}.png" for name in ("001-cat", "sheet") for end in ("", " (2)", " (3)"))
    assert "what was there is kept, and the new names end in (3)" in ended.out
    assert [Stamp.of(tmp_path / "out" / f"001-cat{end}.png").seed for end in ("", " (2)", " (3)")] == [1, 2, 3]


def test_a_picture_by_itself_and_a_sheet(generate: Generate, tmp_path: Path):
    ended = generate("cat", "cat, -maid", "--image", "my photo.png", "--compare", "--out", "out")
    assert ended.code == 0, ended.err
    assert names(tmp_path / "out") == ["001-cat.png", "002-cat-maid.png", "003-my-photo.png", "sheet.png"]
    sheet = np.asarray(Image.open(tmp_path / "out" / "sheet.png"))

    def tile(row: int, column: int) -> np.ndarray:
        return sheet[64 + 168 * row : 64 + 168 * row + 160, 150 + 168 * column : 150 + 168 * column + 160][::5, ::5]

    for column, name in enumerate(names(tmp_path / "out")[:3]):
        assert np.array_equal(tile(1, column), np.asarray(Image.open(tmp_path / "out" / name))[::8, ::8])
    assert np.array_equal(tile(0, 2), np.asarray(Image.open(tmp_path / "my photo.png"))), "above a picture the picture itself"
    assert len(np.unique(tile(0, 1)[20:])) == 1, "nothing above what has no true states"
    assert (sheet[64:144, 318:478] < 150).any(), "but why"
    assert len(np.unique(tile(0, 0))) > 10


def test_a_strip_from_one_prompt_to_another(generate: Generate, tmp_path: Path):
    ended = generate("--between", "cat", "1boy, red hair", "--steps", "3", "--compare", "--out", "out")
    assert ended.code == 0, ended.err
    assert names(tmp_path / "out") == ["strip-01.png", "strip-02.png", "strip-03.png", "strip.png"]
    assert ended.out == "Wrote 3 pictures, strip.png to out.\n"
    assert generate("cat", "1boy, red hair", "cat | 1boy, red hair", "--out", "ends").code == 0
    ends = [np.asarray(Image.open(tmp_path / "ends" / name), int) for name in names(tmp_path / "ends")]
    strip = [np.asarray(Image.open(tmp_path / "out" / name), int) for name in names(tmp_path / "out")[:3]]
    for a, b in zip(strip, (ends[0], ends[2], ends[1]), strict=True):
        assert np.abs(a - b).max() <= 2


def test_a_picture_that_the_negative_prompt_calls_is_not_drawn_itself(generate: Generate, tmp_path: Path):
    ended = generate("cat", "--negative", "<my photo>", "--image", "my photo.png", "--out", "out")
    assert ended.out == "Wrote 001-cat.png to out.\n", ended.err


def test_beside_a_weighted_picture_stands_none(generate: Generate, tmp_path: Path):
    ended = generate("<my photo>", "<my photo>:0.3", "--image", "my photo.png", "--compare", "--out", "out")
    assert ended.code == 0, ended.err
    above = np.asarray(Image.open(tmp_path / "out" / "sheet.png").convert("RGB"))[70:210]
    columns = [above[:, x : x + 140].reshape(-1, 3) for x in (160, 328)]
    assert len(np.unique(columns[0], axis=0)) > 10
    assert (columns[1][len(columns[1]) // 2 :] == 232).all(), "grey"
    assert (columns[1][: len(columns[1]) // 2] < 150).any(), "and why"


def test_warns_of_what_is_far_and_cut(generate: Generate):
    ended = generate("red hair:9", "red hair " * 60)
    assert ended.code == 0
    assert "warning: 'red hair:9.0' is" in ended.err
    assert "times as far out as the prompts that the deprojector was trained on" in ended.err
    assert "longer than 77 tokens" in ended.err


def test_words_that_the_world_has_never_seen_are_named(generate: Generate):
    ended = generate("1girl, spaceship, -dragon", "red hair, in forest")
    assert ended.code == 0
    assert ended.err.count("never seen 'spaceship', 'dragon'; its words: 1girl, 1boy") == 1
    assert "never seen" not in generate("cat maid girl, red eyes, at night", "1boy", "").err


def test_warns_of_marks_and_animations(generate: Generate, tmp_path: Path):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (0, 255)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    ended = generate("((cat))、maid BREAK 1boy", "<moving>", "--image", "moving.gif", "--negative", "[dog]")
    assert ended.code == 0, ended.err
    assert [line for line in ended.err.splitlines() if "warning" in line] == [
        "warning: moving.gif is an animation; its frame 1 of 2 is taken.",
        "warning: ((cat)) is a mark of other programs; here, write cat:1.21.",
        "warning: BREAK is a mark of other programs; here, leave it out, or write a comma.",
        "warning: [dog] is a mark of other programs; here, write dog:0.9091.",
    ]


def test_prompts_of_any_file_of_captions(generate: Generate, tmp_path: Path):
    """By the rules of the training: lines end in LF, CR and CRLF, and nowhere else."""
    (tmp_path / "p.txt").write_bytes("cat\u2028maid\r1boy\0\n\n".encode())
    ended = generate("--file", "p.txt", "--out", "a")
    assert ended.code == 0, ended.err
    assert names(tmp_path / "a") == ["001-cat-maid.png", "002-1boy.png"]
    assert "U+0000 taken out of 1" in ended.out
    (tmp_path / "p.csv").write_text("caption,n\ncat, maid,1\n", encoding="utf-8")
    assert generate("--file", "p.csv", "--out", "b").code == 0
    assert names(tmp_path / "b") == ["001-cat-maid.png"]
    (tmp_path / "p.csv").write_text("n,caption\n1,cat, maid\n", encoding="utf-8")
    assert "p.csv, line 2: 3 fields" in generate("--file", "p.csv").err


def test_mistakes(generate: Generate, tmp_path: Path, exported: Path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "bad.png").write_bytes(b"rubbish")
    (tmp_path / "bad.bin").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "my photo.png", tmp_path / "other")
    LSTMDeprojector(LSTMConfig(64, 96)).save_pretrained(tmp_path / "narrow")
    older = Path(shutil.copytree(exported, tmp_path / "older"))
    config = json.loads((older / "config.json").read_text(encoding="utf-8"))
    del config["provenance"]["selection"]
    (older / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for arguments, said in (
        ([], "nothing to draw"),
        (["cat", ""], "prompt 2 is empty"),
        ([" , "], "prompt 1 is empty"),
        (["cat, (maid"], "character 6 of the prompt:\n  cat, (maid\n       ^"),
        (["<photo>"], "no picture is named <photo>; none was handed over"),
        (["--image", "nowhere.png"], "no picture at nowhere.png"),
        (["--image", "bad.png"], "bad.png cannot be read as a picture"),
        (["--image", "my photo.png", "--image", "other/my photo.png"], "two pictures are named my photo"),
        (["--file", "nowhere.txt"], "no prompts file at nowhere.txt"),
        (["--file", "bad.bin"], "prompts are read from .txt"),
        (["cat", "--out", "file/under"], "cannot be written to"),
        (["cat", "--out", "file"], "cannot be written to"),
        (["cat", "--count", "0"], "--count is at least 1"),
        (["cat", "--seed", "99999999999999999999"], "below 2⁶³"),
        (["cat", "--guidance", "nan"], "finite and at least 1"),
        *([] if torch.cuda.is_available() else [(["cat", "--device", "cuda"], "there is no CUDA here")]),
        (["cat", "--reference", "nowhere"], "nowhere cannot be read"),
        (["--between", "cat", "maid", "--steps", "1"], "--steps is at least 2"),
        (["--between", "cat", "maid", "1girl"], "leave the others out"),
        (["--between", "cat", ""], "prompt 2 is empty"),
        (["--between", "cat", "maid", "--image", "my photo.png"], "calls <my photo>"),
        (["cat", "--strength", "2"], "--strength is 0 to 1"),
        (["red hair:2", "--strength", "0.5"], "needs true states"),
        (["cat", "--negative", "(maid"], "not closed"),
        (["cat", "--guidance", "0"], "at least 1"),
        (["cat", "--sd", "nowhere"], "no pipeline at"),
    ):
        ended = generate(*arguments, "--out", "out") if "--out" not in arguments else generate(*arguments)
        assert ended.code == 1, arguments
        assert said in ended.err, ended.err
        assert len(ended.err.strip().splitlines()) <= 3
    for model, said in (
        ("narrow", "states of width 64, the text encoder 128"),
        ("nowhere", "nowhere is no deprojector"),
        ("other", "is no deprojector"),
    ):
        ended = generate("cat", "--out", "out", model=model)
        assert ended.code == 1
        assert said in ended.err, ended.err
    ended = generate("cat", "--strength", "0.5", "--out", "out", model="older")
    assert "hand over its selection" in ended.err
    assert not (tmp_path / "out").exists() or not names(tmp_path / "out")


def test_a_run_brings_its_own_settings(train: Callable[..., Ended], generate: Generate, tmp_path: Path):
    assert train("hydra.run.dir=run", "sd.guidance=5").code == 0
    assert generate("cat", "--out", "own", model="run").code == 0
    assert generate("cat", "--out", "same", "--guidance", "5", model="run/deprojector").code == 0
    assert generate("cat", "--out", "less", "--guidance", "3", model="run").code == 0
    own, same, less = ((tmp_path / folder / "001-cat.png").read_bytes() for folder in ("own", "same", "less"))
    pixels = [np.asarray(Image.open(tmp_path / f / "001-cat.png")) for f in ("own", "same", "less")]
    assert np.array_equal(pixels[0], pixels[1])
    assert not np.array_equal(pixels[0], pixels[2])
    assert own != less != same


def test_a_run_that_is_not_done_is_drawn_from_by_its_best_weights(
    train: Callable[..., Ended], generate: Generate, tmp_path: Path, encoder: TextEncoder
):
    assert train("hydra.run.dir=run", "trainer.max_epochs=2").code == 0
    whole = Deprojector.from_pretrained("run", encoder)
    shutil.rmtree(tmp_path / "run" / "deprojector")
    (tmp_path / "run" / "result.json").unlink()
    ended = generate("cat", "--out", "out", model="run")
    assert ended.code == 0, ended.err
    assert "run isn't done; taken are its best weights so far, of epoch " in ended.out
    so_far = Deprojector.from_pretrained("run", encoder)
    assert all(torch.equal(value, so_far.state_dict()[name]) for name, value in whole.state_dict().items())
    path = tmp_path / "run" / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    del content["deprojector"]
    torch.save(content, path)
    assert "of an earlier version" in generate("cat", model="run").err
    path.write_bytes(path.read_bytes()[:5000])
    assert "best.ckpt is damaged" in generate("cat", model="run").err


def test_states_are_saved_for_other_tools(generate: Generate, tmp_path: Path, exported: Path):
    prompts = ["cat, maid", "1girl, red hair"]
    ended = generate(*prompts, "--negative", "cat", "--save-conditioning", "states.safetensors")
    assert ended.code == 0, ended.err
    assert ended.out == "Wrote the states of 2 prompts to states.safetensors.\n"
    assert not (tmp_path / "pictures").exists(), "nothing is drawn"
    pipe = DeprojectorPipeline.from_pretrained("pixel", exported)
    positive, negative = pipe.encode_prompt(prompts, negative_prompt="cat")
    found = load_file(tmp_path / "states.safetensors")
    assert set(found) == {"prompt_embeds", "negative_prompt_embeds"}
    assert torch.allclose(found["prompt_embeds"], positive, atol=1e-5)
    assert torch.allclose(found["negative_prompt_embeds"], negative.expand_as(positive), atol=1e-5)
    options = {"num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt", "height": 32, "width": 32}
    assert pipe.sd(**found, **options).images.shape == (2, 3, 32, 32), "diffusers takes it"
    with safe_open(tmp_path / "states.safetensors", "pt") as file:
        told = file.metadata()
    assert json.loads(told["prompts"]) == prompts
    assert (told["clip_skip"], told["encoder"]) == ("1", pipe.encoder.hash)
    assert "is a .safetensors file; got states.pt" in generate("cat", "--save-conditioning", "states.pt").err
