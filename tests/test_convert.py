"""Checkpoints of the reference: made here in its form, since the real ones are not part of a clone."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deproj import convert as command
from deproj.convert import FLAGS, NAMES, convert
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.errors import UserError

BACK = {ours: theirs for theirs, ours in NAMES.items()}


def reference_name(name: str) -> str:
    head, _, rest = name.partition(".")
    if head in BACK:
        return f"models.0.layers.0.{BACK[head]}.{rest}"
    return {"sos": "sos_embed", "deprojection": "deprojection"}.get(name, f"models.0.{name}")


@pytest.fixture
def model() -> LSTMDeprojector:
    torch.manual_seed(1)
    model = LSTMDeprojector(LSTMConfig(6, 9))
    torch.nn.init.normal_(model.sos)
    torch.nn.init.normal_(model.deprojection)
    return model


@pytest.fixture
def checkpoint(tmp_path: Path, model: LSTMDeprojector) -> Path:
    folder = tmp_path / "reference"
    folder.mkdir()
    config = FLAGS | {"hidden_size": 6, "lstm_hidden_size": 9, "h0_residual": True, "h0_excl_residual": False}
    (folder / "config.json").write_text(
        json.dumps(config | {"architectures": ["X"], "transformers_version": "4.29"}), encoding="utf-8"
    )
    save_file({reference_name(name): value for name, value in model.state_dict().items()}, folder / "model.safetensors")
    return folder


def change(folder: Path, **changed: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changed
    path.write_text(json.dumps({key: value for key, value in config.items() if value != "missing"}), encoding="utf-8")


def test_takes_the_weights_over(checkpoint: Path, model: LSTMDeprojector):
    taken = convert(checkpoint)
    embedding = torch.randn(3, 6)
    for projected in (False, True):
        assert torch.equal(taken.generate(embedding, projected), model.generate(embedding, projected))


def test_takes_the_old_form_over(checkpoint: Path, model: LSTMDeprojector):
    (checkpoint / "model.safetensors").unlink()
    torch.save({reference_name(n): v for n, v in model.state_dict().items()}, checkpoint / "pytorch_model.bin")
    assert torch.equal(convert(checkpoint).out_h.weight, model.out_h.weight)


@pytest.mark.parametrize(("pair", "ours"), [((True, False), "both"), ((False, True), "carried"), ((False, False), "neither")])
def test_h0_variants(checkpoint: Path, pair: tuple[bool, bool], ours: str):
    change(checkpoint, h0_residual=pair[0], h0_excl_residual=pair[1])
    assert convert(checkpoint).config.h0_added == ours


@pytest.mark.parametrize("flag", sorted(FLAGS))
def test_other_variants_are_refused_by_name(checkpoint: Path, flag: str):
    ours = FLAGS[flag]
    change(checkpoint, **{flag: not ours if isinstance(ours, bool) else ours + 1})
    with pytest.raises(UserError, match=rf"\b{flag}="):
        convert(checkpoint)


@pytest.mark.parametrize("flag", ["x_residual", "num_layers"])
def test_missing_flag_with_another_default_is_refused(checkpoint: Path, flag: str):
    change(checkpoint, **{flag: "missing"})
    with pytest.raises(UserError, match=f"{flag} is missing"):
        convert(checkpoint)


def test_older_config_without_newer_flags(checkpoint: Path):
    change(checkpoint, use_mlp="missing", vicinity_mode="missing", h0_excl_residual="missing")
    assert convert(checkpoint).config.h0_added == "both"


def test_unknown_flag_is_refused(checkpoint: Path):
    change(checkpoint, use_something_else=True)
    with pytest.raises(UserError, match="use_something_else"):
        convert(checkpoint)


def test_both_h0_flags_are_refused(checkpoint: Path):
    change(checkpoint, h0_excl_residual=True)
    with pytest.raises(UserError, match="both true"):
        convert(checkpoint)


def test_another_width_is_refused(checkpoint: Path):
    change(checkpoint, hidden_size=8)
    with pytest.raises(UserError, match=r"config.json says"):
        convert(checkpoint)


def test_pickled_code_is_not_run(checkpoint: Path, tmp_path: Path):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harm",))

    (checkpoint / "model.safetensors").unlink()
    torch.save({"weight": Harm()}, checkpoint / "pytorch_model.bin")
    with pytest.raises(UserError, match="more than weights"):
        convert(checkpoint)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("how", ["weight missing", "weight unknown", "truncated", "no weights", "not json", "no folder"])
def test_spoilt_checkpoints_are_refused(checkpoint: Path, model: LSTMDeprojector, how: str):
    weights = checkpoint / "model.safetensors"
    state = {reference_name(n): v for n, v in model.state_dict().items()}
    if how == "weight missing":
        save_file(dict(list(state.items())[1:]), weights)
    elif how == "weight unknown":
        save_file(state | {"models.1.extra": torch.zeros(1)}, weights)
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif how == "no weights":
        weights.unlink()
    elif how == "not json":
        (checkpoint / "config.json").write_text("{", encoding="utf-8")
    else:
        checkpoint = checkpoint / "nowhere"
    with pytest.raises(UserError):
        convert(checkpoint)


def test_command(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["convert", str(checkpoint), str(tmp_path / "ours")])
    assert command.main() == 0
    assert LSTMDeprojector.from_pretrained(tmp_path / "ours").config.hidden == 9
    assert command.main() == 1
    assert "not an empty folder" in capsys.readouterr().err
