"""Embeddings to states: the deprojectors, their equations and their files. Imports `deproj.clip` and the floors below it."""

from deproj.model.base import Deprojector, load
from deproj.model.combine import Ensemble, Splice
from deproj.model.lstm import LSTMConfig, LSTMDeprojector
from deproj.model.mlp import MLPConfig, MLPDeprojector

__all__ = ["Deprojector", "Ensemble", "LSTMConfig", "LSTMDeprojector", "MLPConfig", "MLPDeprojector", "Splice", "load"]
