"""Texts and pictures to embeddings and states. Imports `deproj.selection`, `deproj.pixel` and `deproj.process`."""
