"""What the recurrence is held against."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import torch
from torch import Tensor, nn

from deproj.model.base import Deprojector
from deproj.model.lstm import LSTMConfig, LSTMDeprojector

__all__ = ["PEERS", "CompiledLoop", "PlainLoop", "TorchLSTM", "peers"]


class PlainLoop(LSTMDeprojector):
    """The equations of `deproj.model.lstm` as a loop of cells under autograd: what the recurrence is held against."""

    kind = "lstm_plain_loop"

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        state, x, out = self.start(embedding), torch.zeros_like(embedding), []
        for place in range(places):
            x, state = self.step(state, x if fed is None else fed[:, place])
            out.append(x)
        return torch.stack(out, 1)


class CompiledLoop(PlainLoop):
    """The same loop, a place compiled by `torch.compile`, half a minute at the first call; wants a C++ compiler on a CPU."""

    kind = "lstm_compiled_loop"

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.compiled = torch.compile(super().step, dynamic=False)

    def step(self, state: Any, fed: Tensor) -> tuple[Tensor, Any]:
        found: tuple[Tensor, Any] = self.compiled(state, fed)
        return found


class TorchLSTM(LSTMDeprojector):
    """`torch.nn.LSTM` of the same widths in the place of the cell: no norm of what is carried, and h0 added at the end alone.

    Other equations, then, with the same products: what the norms inside the recurrence cost. Fed the true states it is one call;
    fed its own output, a cell a place.
    """

    kind = "lstm_of_torch"

    def __init__(self, config: LSTMConfig) -> None:
        super().__init__(config)
        self.whole = nn.LSTM(config.width, config.hidden, batch_first=True)

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        h0, skip = self.h0(embedding), (self.out_e(embedding) + embedding)[:, None]
        state, out = (h0[None], torch.zeros_like(h0)[None]), []
        if fed is not None:
            h, _ = self.whole(self.x_norm(fed), state)
            return self.final_norm(self.out_h(h + h0[:, None]) + self.out_x(fed) + skip)
        x = torch.zeros_like(embedding)[:, None]
        for _ in range(places):
            h, state = self.whole(self.x_norm(x), state)
            x = self.final_norm(self.out_h(h + h0[:, None]) + self.out_x(x) + skip)
            out.append(x)
        return torch.cat(out, 1)


#: By what the table calls them.
PEERS: dict[str, type[LSTMDeprojector]] = {
    "plain loop": PlainLoop,
    "torch.compile": CompiledLoop,
    "nn.LSTM, no norms": TorchLSTM,
}


def peers(device: str) -> dict[str, type[LSTMDeprojector]]:
    """Those that run here: `torch.compile` wants a C++ compiler for a CPU, which Windows and many machines lack."""
    compiles = device == "cuda" or (sys.platform != "win32" and any(map(shutil.which, ("g++", "clang++", "c++"))))
    return {name: peer for name, peer in PEERS.items() if compiles or peer is not CompiledLoop}


def like(peer: type[LSTMDeprojector], ours: LSTMDeprojector) -> Deprojector:
    """A peer with our weights, as far as it has the same."""
    made = peer(ours.config)
    made.load_state_dict(ours.state_dict(), strict=peer is not TorchLSTM)
    return made
