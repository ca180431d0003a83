"""Comparing runs: pairing, what is left out and why, and the page in a real browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Ended
from PIL import Image

from deproj.measure.compare import difference, estimate
from deproj.measure.labels import Labels
from deproj.measure.results import Result, Setting, collect
from deproj.measure.rows import rows_of
from deproj.process.errors import UserError
from deproj.report.figures import by_place, curves, scatter
from deproj.report.verdict import verdict
from deproj.runs.commands import evaluate_model
from deproj.runs.folder import RunFolder
from deproj.runs.records import Evaluation, JobRecord, Measured, ModelRecord

Train = Callable[..., Ended]


def measured(above: np.ndarray, below: np.ndarray | None = None) -> Measured:
    below = np.ones_like(above) if below is None else below
    return Measured({}, {"likeness": (above.tolist(), below.tolist())}, [])


def test_intervals_over_seeds_and_prompts_cover():
    """With three seeds, whether prompts or seeds make most of the difference."""
    random, trials = np.random.default_rng(0), 300
    for of_prompt, of_seed in ((1.0, 0.02), (0.3, 0.3), (0.02, 1.0)):
        hits = 0
        for _ in range(trials):
            prompts = of_prompt * random.standard_normal(60)
            runs = [measured(1 + prompts + of_seed * random.standard_normal()) for _ in range(3)]
            found = estimate(runs, "likeness")
            assert found is not None
            hits += found.low <= 1 <= found.high
        assert 0.91 <= hits / trials <= 0.99


def test_differences_are_paired():
    random = np.random.default_rng(1)
    prompts = 10 * random.standard_normal(100)  # prompts differ far more than the settings
    ours = [measured(prompts + 0.5 + 0.1 * random.standard_normal(100)) for _ in range(3)]
    theirs = [measured(prompts + 0.1 * random.standard_normal(100)) for _ in range(3)]
    found = difference(ours, theirs, "likeness")
    assert found is not None
    assert found.low > 0.4
    assert found.high < 0.6
    own = estimate(ours, "likeness")
    assert own is not None
    assert own.high - own.low > 2
    with pytest.raises(ValueError, match="different prompts"):
        difference(ours, [measured(np.ones(7))], "likeness")


def test_differences_are_paired_by_seed_where_seeds_are_shared():
    random = np.random.default_rng(2)
    prompts, of_seed = random.standard_normal(100), (-3.0, 0.0, 3.0)  # seeds differ far more than the settings
    ours = [measured(prompts + seed + 0.5 + 0.01 * random.standard_normal(100)) for seed in of_seed]
    theirs = [measured(prompts + seed + 0.01 * random.standard_normal(100)) for seed in of_seed]
    found, apart = (difference(ours, theirs, "likeness", paired) for paired in (True, False))
    assert found is not None
    assert apart is not None
    assert found.value == pytest.approx(apart.value)
    assert found.low > 0.4
    assert apart.low < -1


def test_two_seeds_are_too_few_for_an_interval_over_seeds():
    prompts = np.random.default_rng(3).standard_normal(100)
    two = [measured(prompts + seed) for seed in (-3.0, 3.0)]
    found, alone = estimate(two, "likeness"), estimate([measured(prompts)], "likeness")
    assert found is not None
    assert alone is not None
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high)), "of the prompts alone"


def test_shares_stay_between_0_and_1():
    for values in ((0.99, 0.9, 1.0), (0.0, 0.05, 0.01)):
        runs = [Measured({}, {"fidelity": ([value * 50] * 20, [50.0] * 20)}, []) for value in values]
        found = estimate(runs, "fidelity")
        assert found is not None
        assert 0 <= found.low < found.value < found.high <= 1


def settings(**values: tuple[float, ...]) -> list[Setting]:
    """Settings by name with the fidelity of their seeds, on 100 prompts that differ."""
    spread = np.random.default_rng(4).uniform(-0.05, 0.05, 100)

    def result(name: str, seed: int, value: float) -> Result:
        fidelity = Measured({}, {"fidelity": ((value + spread).tolist(), [1.0] * 100)}, [])
        evaluation = Evaluation(1, "world", 0, ["a"] * 100, {}, fidelity, fidelity)
        return Result(RunFolder(Path(name)), "run", {"selection": name}, (), evaluation, {}, seed=seed)

    return [Setting(n, n, [result(n, seed, v) for seed, v in enumerate(of_seeds)]) for n, of_seeds in values.items()]


def test_the_verdict_says_what_is_best_by_how_much_and_what_is_open():
    clear = settings(poor=(0.70, 0.71, 0.705), good=(0.90, 0.91, 0.905), near=(0.85, 0.86, 0.855))
    single, composed = verdict(clear, rows_of(clear, clear[0]))
    assert single.startswith("On single prompts, “good” is ahead of all others: 0.909 (0.89")
    assert ") of the asked attributes are found in its pictures, 0.050 (0.0" in single
    assert ") more than of “near”, the next. Of the others “near” is ahead, 0.150 (0." in single
    assert single.endswith("more than of “poor”.")
    assert composed.startswith("On composed prompts, “good” is ahead of all others")
    close = settings(one=(0.80, 0.90, 0.85), other=(0.84, 0.85, 0.86), few=(0.2, 0.3))
    single, _, of_few = verdict(close, rows_of(close, close[0]))
    assert "comes first" in single
    assert "Not told apart from it (in brackets, how far it is ahead): “other” (0.000, -0.1" in single
    assert "It is ahead of “few” by 0.6" in single
    level = settings(one=(0.80, 0.90, 0.85), same=(0.80, 0.90, 0.85), few=(0.2, 0.3, 0.25))
    single, _ = verdict(level, rows_of(level, level[0]))
    assert "“one” comes first: 0.854" in single
    assert "Level with it, on every prompt: “same”." in single
    assert "Not told apart" not in single
    assert of_few.startswith("Fewer than 3 training seeds: “few”.")


def test_the_verdict_says_where_conditioning_error_says_otherwise_and_what_is_a_baseline():
    found = settings(good=(0.90, 0.91, 0.905), near=(0.85, 0.86, 0.855))
    for setting, error in zip(found, (0.4, 0.3), strict=True):
        for result in setting.results:
            for kind in ("single", "composed"):
                result.evaluation.of(kind).raw["conditioning_error"] = ([error + 0.01 * (k % 3) for k in range(100)], [1.0] * 100)
    single, _ = verdict(found, rows_of(found, found[0]))
    assert single.endswith("Conditioning error says otherwise: “near” has the least, 0.100 (0.100 to 0.100) less than “good”.")
    ridge = [replace(one, results=[replace(r, kind="baseline") for r in one.results]) for one in found]
    assert verdict(ridge, rows_of(ridge, ridge[0]))[0].startswith("On single prompts, “good”, a baseline, is ahead of all others")


def test_names_leave_out_what_follows_from_choices():
    """As the width of each of several models, and the rest where there is much of it."""

    def result(name: str, **extra: object) -> Result:
        return Result(RunFolder(Path("x")), "run", {"model": name}, (), None, {}, seed=0, extra=extra)  # type: ignore[arg-type]

    def labels(*given: dict[str, object]) -> list[str]:
        results = [result(str(one["model"]), **dict(list(one.items())[1:])) for one in given]
        found = Labels(results)
        assert [found.unsaid(result) for result in results] == [
            [f"{k.rpartition('.')[2]}={v}" for k, v in one.extra.items() if f"{k.rpartition('.')[2]}=" not in found.label(one)]
            for one in results
        ]
        return [found.label(result) for result in results]

    mlp, lstm = {"model": "mlp", "model.hidden": 9}, {"model": "lstm", "model.hidden": 5}
    assert labels(mlp, lstm) == ["mlp", "lstm"]
    assert labels(mlp, mlp | {"model.hidden": 7}) == ["hidden=9", "hidden=7"], "which of them it is doesn't follow"
    assert labels(mlp | {"rate": 1}, lstm | {"rate": 2}) == ["mlp, rate=1", "lstm, rate=2"], "both may be why they differ"
    much = {"a": 1, "b": 2, "c": 3, "d": 4}
    assert labels(mlp | much, lstm) == ["mlp", "lstm"]
    assert labels(mlp | much, mlp | much | {"e": 1}, lstm) == ["mlp", "mlp, e=1", "lstm"]
    plain = {"model": "mlp", "model.hidden": 9, "model.blocks": 3, "model.rank": 1, "objective.states": 0.0}
    mixed = plain | {"model.rank": 2, "objective.states": 0.1}
    wide = plain | {"model.hidden": 8, "model.blocks": 4}
    twice = [result(name="small"), result(name="small", composed="mean"), *(result(name=n, a=n, b=n, c=n, d=n) for n in "xy")]
    told = Labels([replace(one, kind="run" if one.extra.get("a") else "model") for one in twice])
    assert [told.label(one) for one in twice] == ["small", "small, composed=mean", "x", "y"], "each is in the report"
    assert labels(plain, mixed, wide) == [
        "hidden=9, rank=1, states=0.0",
        "hidden=9, rank=2, states=0.1",
        "hidden=8, rank=1, states=0.0",
    ]


def test_rows_are_named_by_what_differs(sweep: Path):
    assert [s.label for s in collect([sweep / "a0", sweep / "a1"])[0]] == ["all, batch"], "nothing differs: all that it is"
    assert [s.label for s in collect([sweep])[0]] == ["all, batch", "eos_onward, recursive"]
    config = sweep / "e0" / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("feed: recursive", "feed: batch"), encoding="utf-8")
    assert [s.label for s in collect([sweep])[0]] == ["all", "eos_onward"]
    text = (sweep / "a1" / "config.yaml").read_text(encoding="utf-8")
    (sweep / "a1" / "config.yaml").write_text(text.replace("split: 0.3", "split: 0"), encoding="utf-8")
    assert [s.label for s in collect([sweep / "a0", sweep / "a1"])[0]] == ["split=0.3", "split=0"]


def test_measured_models_stand_beside_runs(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from deproj.evaluate import main as evaluate

    shutil.copytree(sweep / "e0" / "deprojector", tmp_path / "mine")
    monkeypatch.setattr("sys.argv", ["evaluate", "eos_onward-batch", "mine", "--count", "2"])
    assert evaluate() == 0
    assert run(monkeypatch, "runs", "mine", "--seeds", "1", "--out", "page") == 0
    rows = json.loads((tmp_path / "page" / "report.json").read_text(encoding="utf-8"))["rows"]
    assert [row["setting"] for row in rows if row["prompts"] == "single"] == ["eos_onward-batch", "mine"]
    assert len(list((tmp_path / "page" / "pictures").iterdir())) == 3 * 6
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "python -m deproj.evaluate eos_onward-batch --count 2" in page


def test_a_measured_model_is_measured_again_by_what_it_was_measured_by(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    sd = {"name": "sd15", "path": "my sd", "clip": "openai/clip"}
    command = evaluate_model("mine", {"sd": sd, "data": {"prompts": "captions.txt"}}, 20, 1)
    assert command == (
        "python -m deproj.evaluate mine --count 20 --seed 1 --sd 'my sd' --captions captions.txt --clip openai/clip"
    )
    folder = RunFolder(tmp_path / "runs" / "evaluation-best")
    stored = RunFolder(sweep / "a0").read_evaluation()
    folder.write(folder.measured, ModelRecord("best", {"sd": {"name": "pixel"}, "data": {}}))
    folder.write(folder.evaluation(), replace(stored, world="another"))
    _, left_out = collect([sweep, tmp_path / "runs"])
    assert [reason for path, reason in left_out if path == folder.path] == [
        "measured with another Stable Diffusion than most; to measure it as these: "
        "python -m deproj.evaluate best --count 2 --seed 0"
    ]


def test_fewer_prompts_replace_more_only_when_asked(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from deproj.evaluate import main as evaluate

    stored = sweep / "a0" / "evaluation.json"
    content = json.loads(stored.read_text(encoding="utf-8"))
    stored.write_text(json.dumps(content | {"prompts": content["prompts"] * 100}), encoding="utf-8")
    before = stored.read_bytes()
    monkeypatch.setattr("sys.argv", ["evaluate", str(sweep / "a0"), "--count", "2"])
    assert evaluate() == 1
    assert "evaluation.json is of 200 prompts, and --count 2 would replace it" in capsys.readouterr().err
    assert stored.read_bytes() == before
    monkeypatch.setattr("sys.argv", ["evaluate", str(sweep / "a0"), "--count", "2", "--overwrite"])
    assert evaluate() == 0
    assert stored.read_bytes() != before


@pytest.fixture
def sweep(train: Train, tmp_path: Path) -> Path:
    """Two settings, one of them with two seeds, measured on two prompts."""
    quick = ["evaluate=2", "sd.steps=3"]
    for name, *chosen in (
        ("a0", "selection=all", "feed=batch"),
        ("a1", "selection=all", "feed=batch", "seed=1"),
        ("e0", "selection=eos_onward", "feed=recursive"),
    ):
        assert train(*chosen, *quick, f"hydra.run.dir=sweep/{name}").code == 0
    return tmp_path / "sweep"


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    from deproj.report.__main__ import main

    monkeypatch.setattr("sys.argv", ["report", *arguments])
    return main()


def test_a_report_of_a_sweep(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in ("unfinished", "failed", "broken", "elsewhere", "otherwise", "unmeasured", "twice"):
        shutil.copytree(sweep / "a0", sweep / name)
    for name in ("unfinished", "failed"):
        (sweep / name / "result.json").unlink()
        (sweep / name / "evaluation.json").unlink()
    (sweep / "failed" / "error.txt").write_text("the loss became nan at step 1", encoding="utf-8")
    (sweep / "unmeasured" / "evaluation.json").unlink()
    (sweep / "broken" / "evaluation.json").write_text('{"raw": ', encoding="utf-8")
    stored = json.loads((sweep / "a0" / "evaluation.json").read_text(encoding="utf-8"))
    (sweep / "elsewhere" / "evaluation.json").write_text(json.dumps(stored | {"world": "another"}), encoding="utf-8")
    (sweep / "otherwise" / "evaluation.json").write_text(json.dumps(stored | {"prompts": ["x", "y"]}), encoding="utf-8")

    job = JobRecord(7, {"selection": "all"}, "failed", "data.batch_size=1000000 is more than the 280 samples.")
    RunFolder(sweep / "never-began").write(sweep / "never-began" / "job.json", job)

    assert run(monkeypatch, str(sweep), "--seeds", "2", "--out", "page") == 0
    said = capsys.readouterr().out
    for name, reason in (
        ("unfinished", "interrupted"),
        ("failed", "failed: the loss became nan"),
        ("broken", "broken"),
        ("elsewhere", "another Stable Diffusion"),
        ("otherwise", "other prompts"),
        ("unmeasured", "not evaluated"),
        ("twice", "the same setting and seed"),
        ("never-began", "failed: data.batch_size=1000000 is more"),
    ):
        assert any(f"/{name}:" in line and reason in line for line in said.splitlines()), name
    report = json.loads((tmp_path / "page" / "report.json").read_text(encoding="utf-8"))
    assert [one.split(",")[0] for one in report["verdict"][:2]] == ["On single prompts", "On composed prompts"]
    single = [row for row in report["rows"] if row["prompts"] == "single"]
    assert [(row["setting"], row["seeds"]) for row in single] == [("all, batch", 2), ("eos_onward, recursive", 1)]
    values = [
        json.loads((sweep / name / "evaluation.json").read_text(encoding="utf-8"))["single"]["likeness"]["value"]
        for name in ("a0", "a1")
    ]
    assert single[0]["values"]["likeness"]["value"] == pytest.approx(np.mean(values), abs=1e-5)
    assert single[0]["differences"]["likeness"]["value"] == 0
    assert single[1]["untrained"] == ["mse_words"]
    page = (tmp_path / "page" / "index.html").read_text(encoding="utf-8")
    assert "src='http" not in page
    assert "href='http" not in page
    linked = re.findall("href='([^']*)'", page)
    assert [(tmp_path / "page" / link).is_file() for link in linked] == [True] * 3, "the folder can be sent on as it is"
    own = [(sweep / name / "config.yaml").read_bytes() for name in ("a0", "a1", "e0")]
    assert [(tmp_path / "page" / link).read_bytes() for link in linked] == own
    assert "python -m deproj.train selection=all feed=batch" in page
    assert "never-began</code>: failed: data.batch_size" in page
    key = re.findall("<ul class=key>(.*?)</ul>", page, re.DOTALL)
    assert [re.findall("<span>(.*?)</span>", one) for one in key] == [["all, batch", "eos_onward, recursive"]] * len(key)
    files = sorted((tmp_path / "page").glob("*.svg"))
    assert len(files) == len(key) >= 2
    assert all("eos_onward, recursive</text>" in one.read_text(encoding="utf-8") for one in files), "a file has its own"
    assert (tmp_path / "page" / "report.md").read_text(encoding="utf-8").count("| all, batch | 2 |") == 2
    assert len(list((tmp_path / "page" / "pictures").iterdir())) == 3 * 2 * 6

    before = (tmp_path / "page" / "index.html").read_bytes()
    assert run(monkeypatch, str(sweep), "--seeds", "2", "--out", "page") == 0
    assert (tmp_path / "page" / "index.html").read_bytes() == before

    weights = sweep / "a0" / "deprojector" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    capsys.readouterr()
    assert run(monkeypatch, str(sweep), "--seeds", "1", "--out", "other") == 0
    assert f"left out: {weights.parent}: not drawn: " in capsys.readouterr().out
    assert len(list((tmp_path / "other" / "pictures").iterdir())) == 2 * 6
    assert (tmp_path / "other" / "report.md").read_text(encoding="utf-8").count("| all, batch | 2 |") == 2, (
        "its numbers are there"
    )
    weights.write_bytes(whole)

    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no Chromium here; the rest of the report was tested")
    shot = tmp_path / "shot.png"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", f"--screenshot={shot}"]
    address = f"file://{tmp_path}/page/index.html"
    subprocess.run([chromium, *options, address], check=True, capture_output=True, timeout=120)
    colours = Image.open(shot).convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 100


def test_runs_that_differ_in_more_than_the_seed_are_other_settings(sweep: Path):
    config = (sweep / "a1" / "config.yaml").read_text(encoding="utf-8")
    own = "_target_: deproj.feed.Batch"
    for old, new, told in (
        ("precision: 32", "precision: bf16", "precision=bf16"),
        ("patience: 3", "patience: 4", "patience=4"),
        (own, f"{own}\n  share: 0.5", "share=0.5"),
    ):
        assert old in config
        (sweep / "a1" / "config.yaml").write_text(config.replace(old, new), encoding="utf-8")
        labels = [setting.label for setting in collect([sweep])[0]]
        assert labels == [
            "all, batch",
            f"all, batch, {told}",
            "eos_onward, recursive",
        ]


def test_means_of_parts_are_a_setting_of_composed_prompts_alone(sweep: Path):
    shutil.copy(sweep / "e0" / "evaluation.json", sweep / "e0" / "evaluation-mean.json")
    found, _ = collect([sweep])
    rows = rows_of(found, found[0])
    mean = "eos_onward, recursive, composed=mean"
    assert [row.prompts for row in rows if row.setting == mean] == ["composed"]
    assert mean in by_place(found).whole
    points, lines = scatter(found, rows), curves(found)
    assert points is not None
    assert lines is not None
    assert mean in points.whole
    assert mean not in lines.whole


def test_mistakes(sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        (["nowhere"], "no folder nowhere"),
        (["empty"], "holds no runs"),
        ([str(sweep), "--against", "x"], "no setting 'x'; there are: all, batch; eos_onward, recursive"),
        ([str(sweep), "--seeds", "-1"], "--seeds"),
    ):
        assert run(monkeypatch, *arguments) == 1
        assert said in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    (sweep / "a0" / "evaluation.json").unlink()
    with pytest.raises(UserError, match="nothing to report"):
        collect([sweep / "a0"])
