"""How far an embedding is from those that a model was trained on.

With μ and Σ the mean and the covariance of the training embeddings, mixed as they are trained on, the Mahalanobis distance

    d(e) = |L⁻¹ (e - μ)| / q,   L Lᵀ = Σ + shrinkage,

where q is such that one in a thousand of training embeddings is beyond it: 1 is as far as training goes.
"""

from __future__ import annotations

from typing import Self

import torch
from torch import Tensor, nn

__all__ = ["FAR", "ROWS", "EmbeddingDistance", "in_words"]

#: From where on an embedding is called far: a prompt of five parts or more, each embedded by itself, reaches 1.4.
FAR = 1.5
#: Samples that are looked at, however many there are: enough for a covariance of 768 x 768.
ROWS = 10_000
#: Added to the correlations' diagonal, for directions in which the training embeddings do not vary.
SHRINKAGE = 1e-3


class EmbeddingDistance(nn.Module):
    """Measures the distance of embeddings to a model's training embeddings; saved with the model, apart from its weights.

    Attributes:
        mean: μ, (D,).
        whitening: L⁻¹ / q, (D, D).
    """

    mean: Tensor
    whitening: Tensor

    def __init__(self, mean: Tensor, whitening: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float(), persistent=False)
        self.register_buffer("whitening", whitening.float(), persistent=False)

    @classmethod
    def fit(cls, embedding: Tensor) -> Self:
        """Fits it to training embeddings in random order, (N, D); of many, the first 10,000.

        The quantile is taken over a fifth of them, which the covariance has not seen.
        """
        rows = embedding[:ROWS].double().cpu()
        seen = torch.arange(len(rows)) % 5 != 4
        fitted, left_out = (rows[seen], rows[~seen]) if len(rows) >= 5 else (rows, rows)
        mean = fitted.mean(0)
        scale = (fitted - mean).square().mean(0).sqrt()
        scale = scale.clamp(min=1e-6 * float(scale.max()) or 1.0)  # all rows may be equal
        standard = (fitted - mean) / scale
        correlation = standard.T @ standard / len(fitted)
        identity = torch.eye(len(mean), dtype=torch.float64)
        whitening = torch.linalg.solve_triangular(
            torch.linalg.cholesky(correlation + SHRINKAGE * identity), identity, upper=False
        )
        whitening = whitening / scale
        reach = float(torch.quantile(((left_out - mean) @ whitening.T).norm(dim=1), 0.999))
        return cls(mean, whitening / (reach or 1.0))

    def forward(self, embedding: Tensor) -> Tensor:
        """Distances of embeddings (B, D), (B,); above 1 is farther than the model was trained."""
        return ((embedding.to(self.mean) - self.mean) @ self.whitening.T).norm(dim=1)


def in_words(far: float) -> str:
    """A distance above `FAR`, as the end of a sentence on an embedding."""
    times = f"{far:.1f}" if far < 10 else f"{far:,.0f}"
    return f"{times} times as far out as the prompts that the deprojector was trained on; its picture may be wrong."
