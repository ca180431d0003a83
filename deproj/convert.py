"""Takes over a checkpoint of the reference implementation: ``python -m deproj.convert SRC DST``.

SRC is a folder with ``config.json`` and ``model.safetensors`` or, as saved in 2023, ``pytorch_model.bin``.
Of the reference's many variants we build one (`LSTMDeprojector`); any other is refused by its flag.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.process.arguments import Parser
from deproj.process.errors import UserError, run_command
from deproj.process.files import named_path

__all__ = ["convert"]

#: Flags that change what is computed, with the value that our model stands for.
FLAGS: dict[str, Any] = {
    **dict.fromkeys(
        ("states_proj", "use_c_norm", "use_extra_linear", "use_h_norm", "use_hidden_0", "use_model3", "use_x_norm"), True
    ),
    **dict.fromkeys(
        (
            "add_embed_once", "additional_mlp", "combined_x_norm", "lstm_hidden_with_residual", "out_proj", "use_attention",
            "use_context_0", "use_extra", "use_extra_norm", "use_extra_scale", "use_global_state_norm", "use_mlp", "use_model2",
            "use_out_extended_proj", "use_out_norm", "use_out_proj", "use_out_scale", "use_sos", "use_state_0",
            "vicinity_mode", "x_out_residual", "x_residual",
        ),
        False,
    ),
    "add_embed_at": -1,
    "ensemble_size": 1,
    "mlp_intermediate_dim": 0,
    "num_layers": 1,
    "max_position_embeddings": 77,
}  # fmt: skip
#: Flags whose default in the reference is not our value: an older config that lacks them is refused.
OTHER_DEFAULT = ("x_residual", "num_layers")
#: (h0_residual, h0_excl_residual) to our `h0_added`.
H0_ADDED = {(True, False): "both", (False, True): "carried", (False, False): "neither"}
#: Entries that describe CLIP or the file, not the computation.
DESCRIPTIVE = {
    "architectures", "attention_dropout", "bos_token_id", "dropout", "dtype", "eos_token_id", "h0_excl_residual", "h0_residual",
    "hidden_act", "hidden_size", "initializer_factor", "initializer_range", "intermediate_size", "layer_norm_eps",
    "lstm_hidden_size", "model_type", "num_attention_heads", "num_hidden_layers", "pad_token_id", "projection_dim", "torch_dtype",
    "transformers_version", "vocab_size", "_name_or_path",
}  # fmt: skip
NAMES = {
    "h0_linear": "h0", "x_norm": "x_norm", "lstm": "cell", "c_norm": "c_norm", "h_norm": "h_norm", "lstm_linear": "out_h",
    "states_linear": "out_x", "embed_linear": "out_e",
}  # fmt: skip


def rename(name: str) -> str:
    """The reference's name of a weight or buffer to ours; `KeyError` for one we don't have."""
    if name in ("sos_embed", "deprojection"):
        return {"sos_embed": "sos"}.get(name, name)
    parts = name.split(".")
    if parts[:3] == ["models", "0", "final_norm"]:
        return ".".join(parts[2:])
    if parts[:4] == ["models", "0", "layers", "0"]:
        return ".".join([NAMES[parts[4]], *parts[5:]])
    raise KeyError(name)


def check_flags(config: dict[str, Any], source: Path) -> None:
    for flag, ours in FLAGS.items():
        if flag not in config:
            if flag in OTHER_DEFAULT:
                raise UserError(f"{source}: {flag} is missing, so it has the reference's default, which we don't build.")
        elif config[flag] != ours:
            raise UserError(f"{source}: {flag}={config[flag]} is a model variant that we don't build (only {flag}={ours}).")
    for flag, value in config.items():
        if flag not in FLAGS and flag not in DESCRIPTIVE and value:
            raise UserError(f"{source}: {flag}={value} is a setting that we don't know; it may change the computation.")


def read(source: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not source.is_dir():
        raise UserError(f"{source} is no folder; name the one that holds config.json and the weights.")
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))
        if (source / "model.safetensors").is_file():
            return config, load_file(source / "model.safetensors")
        if (source / "pytorch_model.bin").is_file():
            return config, torch.load(source / "pytorch_model.bin", map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{source} is no checkpoint folder: it has no config.json.") from None
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f"{source} is damaged, or holds more than weights: {str(error).splitlines()[0]}") from None
    raise UserError(f"{source} has neither model.safetensors nor pytorch_model.bin.")


def convert(source: str | Path) -> LSTMDeprojector:
    """Builds our model from a reference checkpoint folder.

    Raises:
        UserError: for a variant that we don't build, naming the flag; for weights that are missing,
            unknown, or of another width than config.json says.
    """
    source = Path(source)
    config, weights = read(source)
    if not isinstance(config, dict) or not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise UserError(f"{source} holds no settings in config.json, or something else than weights.")
    check_flags(config, source)
    pair = (bool(config.get("h0_residual", True)), bool(config.get("h0_excl_residual", False)))
    if pair not in H0_ADDED:
        raise UserError(f"{source}: h0_residual and h0_excl_residual are both true, which we don't build.")
    try:
        sizes = int(config["hidden_size"]), int(config["lstm_hidden_size"])
        state = {rename(name): value for name, value in weights.items()}
    except KeyError as error:
        raise UserError(f"{source}: {error.args[0]!r} is missing from config.json, or a weight that we don't know.") from None
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}/config.json: {error}.") from None
    model = LSTMDeprojector(
        LSTMConfig(*sizes, H0_ADDED[pair], float(config.get("layer_norm_eps", 1e-5))),
        projected="deprojection" in state,
        provenance={"encoder": None, "converted_from": source.name},
    )
    for name, value in model.state_dict().items():
        if name not in state:
            raise UserError(f"{source}: the weight {name} is missing.")
        if state[name].shape != value.shape:
            raise UserError(f"{source}: {name} is {tuple(state[name].shape)}, config.json says {tuple(value.shape)}.")
    model.load_state_dict(state)
    return model.eval()


def main() -> int:
    parser = Parser(prog="python -m deproj.convert", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="checkpoint folder of the reference")
    parser.add_argument("destination", type=named_path, help="new folder for our config.json and model.safetensors")
    args = parser.parse_args()

    def command() -> None:
        if args.destination.exists() and (not args.destination.is_dir() or any(args.destination.iterdir())):
            raise UserError(f"{args.destination} is not an empty folder; name a new one.")
        model = convert(args.source)
        model.save_pretrained(args.destination)
        print(f"Wrote {args.destination}: states of width {model.config.width}, LSTM of width {model.config.hidden}.")

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
