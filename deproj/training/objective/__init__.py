"""What training makes small: the error of the states, or what that error does to the U-Net.

Imports `deproj.data`, `deproj.draw`, `deproj.feed`, `deproj.model`, and what is below them; nothing else of `deproj.training`.
"""

from deproj.training.objective.base import Objective, States, weighted_loss
from deproj.training.objective.conditioning import Attention, Conditioning

__all__ = ["Attention", "Conditioning", "Objective", "States", "weighted_loss"]
