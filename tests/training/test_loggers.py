"""Dashboards: what real runs write for W&B (offline) and TensorBoard, read back."""

import importlib.util
import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from conftest import Ended, call
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from deproj.process.errors import UserError
from deproj.runs.folder import RunFolder
from deproj.texts.benchmark import COMPOSED, SINGLE
from deproj.training.dashboards import picture_name
from deproj.training.weights_and_biases import NO_DETAILS, WandbDashboard, job_name

Train = Callable[..., Ended]
spec = importlib.util.spec_from_file_location("dashboard", Path(__file__).parents[2] / "experiments" / "dashboard.py")
assert spec is not None
assert spec.loader is not None
dashboard = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dashboard)
build = dashboard.build
SHOWN = ["evaluate=2", "render=1", "sd.steps=2"]
KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B begins anew in each test, with no key and no settings of the user's."""
    wandb.teardown()
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "no-config"))
    yield
    wandb.teardown()


def records(run: Path) -> list[Record]:
    """The records of a run's one offline file: 32 KiB blocks of (checksum, length, part), parts of records."""
    wandb.teardown()  # its service writes the last of a run after the run is finished
    (path,) = run.glob("wandb/offline-run-*/*.wandb")
    data, at, whole, found = path.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, part = struct.unpack("<IHB", data[at : at + 7])
        whole = (b"" if part in (1, 2) else whole) + data[at + 7 : at + 7 + length]
        at += 7 + length
        if part in (1, 4):
            found.append(Record())
            found[-1].ParseFromString(whole)
    return found


def nested(items: Any) -> dict[str, Any]:
    """The values of a history or config record, ``media`` and the like as dicts."""
    found: dict[str, Any] = {}
    for item in items:
        *path, last = list(item.nested_key) or [item.key]
        place = found
        for key in path:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return found


def history(read: list[Record]) -> list[dict[str, Any]]:
    return [nested(record.history.item) for record in read if record.HasField("history")]


def exit_code(read: list[Record]) -> int:
    (code,) = [record.exit.exit_code for record in read if record.HasField("exit")]
    return code


def begun(read: list[Record]) -> Any:
    (run,) = [record.run for record in read if record.HasField("run")]
    return run


def shown_keys(workspace: Any) -> set[str]:
    """The names of all that a dashboard's panels show."""
    panels = [
        panel.config for section in workspace._to_model().spec.section.panel_bank_config.sections for panel in section.panels
    ]
    found = [key for panel in panels for key in (getattr(panel, "media_keys", None) or getattr(panel, "metrics", None) or [])]
    return {key.removeprefix("summary_metrics.") for key in found}


def test_wandb_holds_metrics_pictures_evaluation_model_and_config(train: Train, tmp_path: Path):
    ended = train("logger=wandb", "logger.project=mine", "hydra.run.dir=run", *SHOWN)
    assert ended.code == 0, ended.err
    said = [line for line in (ended.out + ended.err).splitlines() if line.lower().startswith(("w&b", "wandb"))]
    assert len(said) == 1, "in one line"
    run = tmp_path / "run"
    read = records(run)
    assert "no key" in said[0]
    assert said[0].endswith(f"wandb sync {run}/wandb/offline-run-*"), "how to send it"

    about = begun(read)
    assert about.project == "mine"
    assert about.display_name == "eos_onward, recursive, seed 0"
    assert about.run_group == "", "no sweep"
    assert about.job_type == "train"
    told = {item.key or ".".join(item.nested_key): item.value_json for entry in read for item in entry.summary.update}
    assert {
        "best/epoch",
        "best/val/loss",
        "run/epochs",
        "run/seconds",
        "run/samples_per_second",
        "run/parameters",
        "run/command",
    } <= set(told)
    assert told["best/epoch"] == "1"
    assert "python -m deproj.train" in told["run/command"]
    assert set(about.tags) == {"eos_onward", "recursive", "lstm", "states", "pixel"}
    config = nested(about.config.update)
    assert config["selection"] == {"_target_": "deproj.selection.EosOnward"}
    assert config["data"]["size"] == 60
    assert exit_code(read) == 0

    rows = history(read)
    assert any("train/loss" in row for row in rows)
    (held_out,) = [row["val/loss"] for row in rows if "val/loss" in row]
    assert held_out == pytest.approx(json.loads((run / "result.json").read_text(encoding="utf-8"))["val_loss"])
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    (measures,) = [row for row in rows if "composed/conditioning_error" in row]
    assert measures["composed/conditioning_error"] == evaluation["composed"]["conditioning_error"]["value"]

    files = next(run.glob("wandb/offline-run-*")) / "files"
    (pictures,) = [row for row in rows if "benchmark" in row]
    assert pictures["trainer/global_step"] == 3
    sheet = pictures["benchmark"]
    assert "epoch 1" in sheet["caption"]
    assert all(prompt in sheet["caption"] for prompt in SINGLE + COMPOSED)
    drawn = Image.open(run / "sheets" / "epoch-001.png").convert("RGB")
    assert Image.open(files / sheet["path"]).convert("RGB").tobytes() == drawn.tobytes()
    for column, prompt in enumerate(SINGLE + COMPOSED):
        left = 150 + column * 168 + (24 if column >= 3 else 0)
        for section, top, row in (
            ("true_states", 64, "true states"),
            ("pictures", 64 + 168, "eos_onward, recursive, epoch 1"),
        ):
            single = pictures["/".join((section, picture_name(prompt)))]
            assert single["caption"] == f"{prompt}: {row}"
            own = Image.open(files / single["path"]).convert("RGB")
            assert own.tobytes() == drawn.crop((left, top, left + 160, top + 160)).tobytes(), "as on the sheet"

    (shown,) = [row["evaluation"] for row in rows if "evaluation" in row]
    table = json.loads((files / shown["path"]).read_text(encoding="utf-8"))
    assert table["columns"] == ["setting", "seed", "prompts", "measure", "value", "low", "high", "n"]
    entry = evaluation["single"]["fidelity"]
    row = ["eos_onward, recursive", 0, "single", "fidelity", *(entry[key] for key in ("value", "low", "high", "n"))]
    assert row in table["data"]
    logged = {key for row in rows for key in row}
    assert {"loss_of_eos_onward/train", "loss_of_eos_onward/val", "learning_rate"} <= logged
    missing = {key for key in shown_keys(build("me", "mine")) - logged if not key.startswith("loss_of_")}
    assert missing == {"single/clip_score", "composed/clip_score"}, "all else that the dashboard shows is there"
    (model,) = [record.artifact for record in read if record.artifact.type == "model"]
    assert {entry.path for entry in model.manifest.contents} == {"README.md", "config.json", "model.safetensors", "sheet.png"}
    assert all(Path(entry.local_path).is_relative_to(run.resolve()) for entry in model.manifest.contents)


def test_only_config_and_results_are_sent(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Telltales in all places that W&B might look at: none is in the file."""
    telltales = {name: f"telltale-{name}" for name in ("host", "user", "home", "remote", "secret", "argument")}
    monkeypatch.setattr(socket, "gethostname", lambda: telltales["host"])
    for name in ("USER", "LOGNAME", "WANDB_USERNAME"):
        monkeypatch.setenv(name, telltales["user"])
    monkeypatch.setenv("HOME", str(tmp_path / telltales["home"]))
    monkeypatch.setenv("MY_SECRET", telltales["secret"])
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "remote", "add", "origin", f"https://example.com/{telltales['remote']}.git"], check=True)
    ended = train("logger=wandb", "hydra.run.dir=run", "hydra.job.name=" + telltales["argument"])
    assert ended.code == 0, ended.err
    run = tmp_path / "run"
    read = records(run)
    kinds = {record.WhichOneof("record_type") for record in read}
    assert kinds <= {"header", "run", "telemetry", "metric", "summary", "history", "artifact", "files", "exit"}
    assert begun(read).host == ""
    assert not begun(read).HasField("git")
    (offline,) = run.glob("wandb/offline-run-*")
    (file,) = offline.glob("*.wandb")
    paths = [sys.executable, str(Path.cwd()), socket.gethostname(), *telltales.values()]
    content = file.read_bytes()
    for record in read:  # where to find the model on this disk, which wandb's manifest leaves out
        for entry in record.artifact.manifest.contents:
            content = content.replace(entry.local_path.encode(), b"")
    for path in paths:
        assert path.encode() not in content, path
    assert [path.name for path in (offline / "files").iterdir()] == [], "no metadata, no packages, no code"


def test_details_are_sent_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(tmp_path)
    config = {"choices": dict.fromkeys(("selection", "feed", "model", "sd"), "x") | {"experiment": None}, "seed": 0}
    for details in (False, True):
        folder = tmp_path / str(details)
        folder.mkdir()
        dashboard = WandbDashboard(config, RunFolder(folder), "mine", details)
        settings = dashboard.experiment.settings
        assert all(getattr(settings, name) == value for name, value in NO_DETAILS.items()) != details
        dashboard.finish(0)
        assert (begun(records(folder)).host == "") != details


def test_a_failing_run_ends_with_its_exit_code(train: Train, tmp_path: Path):
    ended = train("logger=wandb", "optimizer.learning_rate=1e30", "hydra.run.dir=run")
    assert ended.code == 1
    assert exit_code(records(tmp_path / "run")) == 1


def test_jobs_of_a_sweep_are_runs_of_their_own_in_its_group(train: Train, tmp_path: Path):
    """All jobs share one process; one that fails leaves nothing of its run to the next."""
    ended = train("-m", "optimizer.learning_rate=1e30,0.01", "seed=3", "logger=wandb", "render=off", "hydra.sweep.dir=my_sweep")
    assert ended.code == 1
    runs = [records(next((tmp_path / "my_sweep").glob(f"{number}-learning_rate=*"))) for number in (0, 1)]
    assert [exit_code(read) for read in runs] == [1, 0]
    assert [begun(read).run_group for read in runs] == ["my_sweep", "my_sweep"]
    assert len({begun(read).run_id for read in runs}) == 2
    names = [begun(read).display_name for read in runs]
    assert names[1] == "eos_onward, recursive, seed 3, learning_rate=0.01", "what the jobs share is left out"
    assert names[0] != names[1]
    assert "data.cache" not in names[1]
    assert not any("val/loss" in row for row in history(runs[0]))
    assert any("val/loss" in row for row in history(runs[1]))


def test_a_job_is_named_by_what_tells_it_from_others(tmp_path: Path):
    choices = {"selection": "all", "feed": "batch", "model": "mlp"}
    assert job_name({"choices": choices, "seed": 4}, RunFolder(tmp_path)) == "all, batch, mlp, seed 4"
    settings = choices | {"seed": 4, "logger": "wandb", "data.cache": "/x", "render": "off", "data.split": "0.5"}
    (tmp_path / "job.json").write_text(
        json.dumps({"number": 0, "settings": settings, "state": "started", "error": ""}), encoding="utf-8"
    )
    assert job_name({"choices": choices, "seed": 4}, RunFolder(tmp_path)) == "all, batch, mlp, seed 4, split=0.5"


def test_a_job_is_not_named_by_what_its_sweep_shares(train: Train, tmp_path: Path):
    assert train("-m", "data.split=0.1,0.2", "data.combine=0.3", "logger=wandb", "hydra.sweep.dir=sweep").code == 0
    names = [begun(records(path)).display_name for path in sorted((tmp_path / "sweep").glob("*-split=*"))]
    assert names == [f"eos_onward, recursive, seed 0, split={split}" for split in ("0.1", "0.2")]


def test_a_resumed_run_goes_on_with_its_wandb_run(train: Train, tmp_path: Path):
    assert train("logger=wandb", "hydra.run.dir=run").code == 0
    before = records(tmp_path / "run")
    (first,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    first.rename(tmp_path / "first")
    assert train("resume=run", "trainer.max_epochs=2", defaults=False).code == 0
    after = records(tmp_path / "run")
    assert begun(after).run_id == begun(before).run_id == (tmp_path / "run" / "wandb-id").read_text(encoding="utf-8").strip()
    assert begun(after).resume
    assert min(row["trainer/global_step"] for row in history(after) if "train/loss" in row) >= 2, "no step again"


def test_a_spoilt_id_begins_a_new_wandb_run(tmp_path: Path):
    (tmp_path / "wandb-id").write_text("../../elsewhere\n", encoding="utf-8")
    config = {"choices": {}, "seed": 0}
    assert re.fullmatch("[0-9a-f]{8}", WandbDashboard(config, RunFolder(tmp_path), "mine", False).version)


@pytest.mark.parametrize(("key", "reason"), [(KEY, "the server did not take it"), ("short", "WANDB_API_KEY invalid")])
def test_without_a_server_it_goes_on_offline(
    key: str, reason: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("deproj.training.weights_and_biases.START", 3)
    ended = train("logger=wandb", "hydra.run.dir=run")
    assert ended.code == 0, ended.err
    (said,) = [line for line in ended.out.splitlines() if line.startswith("W&B: ")]
    assert "offline (" in said
    assert reason in said
    read = records(tmp_path / "run")
    assert exit_code(read) == 0
    assert begun(read).run_id == (tmp_path / "run" / "wandb-id").read_text(encoding="utf-8").strip()
    assert KEY not in ended.out + ended.err


def test_an_interrupted_run_ends_with_the_signals_exit_code(caches: Path, tmp_path: Path):
    """Ctrl-C goes to the whole group of processes, W&B's among them."""
    command = [sys.executable, "-m", "deproj.train", "logger=wandb", "hydra.run.dir=run", "data.size=60", "data.batch_size=20"]
    command += [f"data.cache={caches}", "data.held_out=10", "render=off", "evaluate=0", "trainer.progress=false"]
    command += ["trainer.max_epochs=1000", "trainer.patience=1000"]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, env=os.environ | {"PYTHONPATH": os.getcwd()})
    try:
        limit = time.monotonic() + 250
        while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.1)
        os.killpg(process.pid, 2)
        assert process.wait(100) == 130
    finally:
        process.kill()
    read = records(tmp_path / "run")
    assert exit_code(read) == 130
    assert any("val/loss" in row for row in history(read))


def test_tensorboard_shows_the_same(train: Train, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train("logger=tensorboard", "hydra.run.dir=run", "trainer.max_epochs=2", *SHOWN).code == 0
    assert train("resume=run", "trainer.max_epochs=3", defaults=False).code == 0
    run = tmp_path / "run"
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    assert [event.step for event in events.Images("benchmark")] == [1, 2, 3]
    for prompt in SINGLE + COMPOSED:
        assert [event.step for event in events.Images(f"pictures/{picture_name(prompt)}")] == [1, 2, 3]
        assert len(events.Images(f"true_states/{picture_name(prompt)}")) == 1
    (tmp_path / "sheet.png").write_bytes(events.Images("benchmark")[1].encoded_image_string)
    drawn = Image.open(run / "sheets" / "epoch-002.png").convert("RGB")
    assert Image.open(tmp_path / "sheet.png").convert("RGB").tobytes() == drawn.tobytes()
    assert len(events.Scalars("val/loss")) == 3
    assert [event.value for event in events.Scalars("epoch")][-1] >= 3, "counted from 1"
    assert not any(" " in tag for tag in events.Tags()["scalars"])
    assert {"composed/conditioning_error", "best/val/loss", "run/parameters", "learning_rate"} <= set(events.Tags()["scalars"])
    assert "_hparams_/session_start_info" in events.summary_metadata, "the HPARAMS tab has the run"
    steps = [event.step for event in events.Scalars("train/loss")]
    assert steps == sorted(set(steps)), "no step twice"
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    shown = events.Tensors("evaluation/text_summary")[-1].tensor_proto.string_val[0].decode()
    entry = evaluation["composed"]["fidelity"]
    assert f"| composed | fidelity | {entry['value']} | {entry['low']} | {entry['high']} | {entry['n']} |" in shown
    value = evaluation["single"]["fidelity"]["value"]
    assert events.Scalars("single/fidelity")[-1].value == pytest.approx(value)


@pytest.mark.parametrize("name", ["", "a/b", "x" * 129])
def test_a_project_that_wandb_would_refuse_is_refused_at_once(name: str, train: Train, tmp_path: Path):
    ended = train("logger=wandb", f"logger.project='{name}'")
    assert ended.code == 1
    assert "logger.project is a name" in ended.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_MODE", "nonsense", "Input should be 'online', 'offline'"),
        ("WANDB_MODE", "", "Input should be 'online', 'offline'"),
        ("WANDB_BASE_URL", "nonsense", "valid URL"),
        ("WANDB_RESUME", "nonsense", "Input should be 'allow'"),
        ("WANDB_CONSOLE", "nonsense", "Input should be 'auto'"),
        ("WANDB_SILENT", "nonsense", "valid boolean"),
        ("WANDB_INIT_TIMEOUT", "soon", "valid number"),
        ("WANDB_HTTP_TIMEOUT", "soon", "valid number"),
        ("WANDB_TAGS", "x" * 100, "100 characters"),
        ("WANDB_RUN_ID", "a/b:c", "cannot contain"),
        ("WANDB_PROJECT", "a/b", "cannot contain"),
    ],
)
def test_what_wandb_refuses_in_the_environment_is_told(
    name: str, value: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv(name, value)
    choices = dict.fromkeys(("selection", "feed", "model", "sd", "experiment"), "all")
    with pytest.raises(UserError, match=said) as error:
        _ = WandbDashboard({"choices": choices, "seed": 0}, RunFolder(tmp_path), "deproj", False).experiment
    assert name in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.skipif(sys.platform == "win32", reason="/proc can't be written to")
@pytest.mark.parametrize("name", ["WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CONFIG_DIR"])
def test_folders_of_wandb_that_cannot_be_written_are_no_hindrance(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its data lies in the run's folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv(name, "/proc/none")
    choices = dict.fromkeys(("selection", "feed", "model", "sd", "experiment"), "all")
    board = WandbDashboard({"choices": choices, "seed": 0}, RunFolder(tmp_path), "deproj", False)
    board.log_metrics({"train/loss": 1.0}, 1)
    board.finish(0)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 1


def test_the_dashboard_is_built_without_a_server():
    from wandb_workspaces.workspaces import Workspace

    workspace = build("me", "mine", "A view")
    assert (workspace.entity, workspace.project, workspace.name) == ("me", "mine", "A view")
    grids = [panel for section in workspace.sections for panel in section.panels if getattr(panel, "mode", None) == "grid"]
    assert {(grid.grid_x_axis, grid.grid_y_axis) for grid in grids} == {("step", "run")}
    keys = {key for grid in grids for key in grid.media_keys}
    assert keys == {f"{section}/{picture_name(p)}" for section in ("pictures", "true_states") for p in SINGLE + COMPOSED}
    again = Workspace._from_model(workspace._to_model())
    assert shown_keys(again) == shown_keys(workspace), "as W&B would give it back"
    assert {"loss_of_all/val", "loss_of_conditioning/train", "benchmark"} <= shown_keys(workspace)


@pytest.mark.parametrize(
    ("target", "told"),
    [("mine", "ENTITY/PROJECT"), ("/mine", "ENTITY/PROJECT"), ("a/b/c", "ENTITY/PROJECT"), ("me/mine", "no W&B key")],
)
def test_the_dashboard_command_tells_mistakes(
    target: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ended = call(dashboard.main, [target], monkeypatch, capsys)
    assert ended.code == 1
    assert told in ended.err
    assert len(ended.err.splitlines()) == 1
