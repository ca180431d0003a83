"""The reader: a small network that reads a scene's attributes off its picture."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from deproj.pixel.grammar import Key
from deproj.pixel.scenes import ATTRIBUTES

__all__ = ["Reader"]


class Reader(nn.Module):
    """A convolutional classifier, one head an attribute; class 0 is "not there".

    `forward` takes pictures (B, 3, 32, 32) in [-1, 1] and returns logits (B, classes) by attribute.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in ((32, 1), (64, 2), (96, 2), (128, 2)):
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, 1, 1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Sequential(nn.Linear(channels * 16, 256), nn.ReLU())
        self.heads = nn.ModuleDict({name: nn.Linear(256, 1 + len(values)) for name, values in ATTRIBUTES.items()})

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        hidden = self.hidden(self.body(pictures))
        return {name: head(hidden) for name, head in self.heads.items()}

    @torch.no_grad()
    def read(self, pictures: Tensor) -> list[dict[str, tuple[str | None, float]]]:
        """What each picture shows: by attribute the value (None: not there) and its probability."""
        probabilities = {name: F.softmax(logits.float(), -1).max(-1) for name, logits in self(pictures).items()}
        found: list[dict[str, tuple[str | None, float]]] = []
        for row in range(len(pictures)):
            found.append({})
            for name, (confidence, index) in probabilities.items():
                k = int(index[row])
                found[-1][name] = (ATTRIBUTES[name][k - 1] if k else None, float(confidence[row]))
        return found

    def fidelity(self, pictures: Tensor, keys: list[Key]) -> list[float]:
        """Prompt fidelity: of the attributes that each key asks for, the share found in its picture.

        The share of a key that asks for nothing is nan.
        """
        shares = []
        for seen, key in zip(self.read(pictures), keys, strict=True):
            hits = [seen[name][0] == value for name, value in key]
            shares.append(sum(hits) / len(hits) if hits else float("nan"))
        return shares

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Reader:
        reader = cls()
        reader.load_state_dict({k: v.float() for k, v in load_file(Path(folder) / "model.safetensors").items()})
        return reader.eval()
