"""Embeddings to states: the deprojectors, their equations and their files. Imports `deproj.clip` and the floors below it."""

from deproj.model.base import Deprojector, load
from deproj.model.combine import Ensemble, Splice
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.model.mlp import MLPConfig, MLPDeprojector
from deproj.model.residual import ResidualConfig, ResidualDeprojector
from deproj.model.transformer import TransformerConfig, TransformerDeprojector

__all__ = [
    "Deprojector",
    "Ensemble",
    "LSTMConfig",
    "LSTMDeprojector",
    "MLPConfig",
    "MLPDeprojector",
    "ResidualConfig",
    "ResidualDeprojector",
    "Splice",
    "TransformerConfig",
    "TransformerDeprojector",
    "load",
]
