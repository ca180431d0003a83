"""Ensembles and splices, by the name that users import; they stand in `deproj.model.combine`."""

from deproj.model.combine import Ensemble, EnsembleConfig, LengthHead, Splice, SpliceConfig

__all__ = ["Ensemble", "EnsembleConfig", "LengthHead", "Splice", "SpliceConfig"]
