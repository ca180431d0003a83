"""What the recurrence is held against."""

from __future__ import annotations

import torch
from torch import Tensor

from deproj.model.lstm import LSTMDeprojector


class PlainLoop(LSTMDeprojector):
    """The equations of `deproj.model.lstm` as a loop of cells under autograd: what the recurrence is held against."""

    kind = "lstm_plain_loop"

    def unroll(self, embedding: Tensor, places: int, fed: Tensor | None = None) -> Tensor:
        state, x, out = self.start(embedding), torch.zeros_like(embedding), []
        for place in range(places):
            x, state = self.step(state, x if fed is None else fed[:, place])
            out.append(x)
        return torch.stack(out, 1)
