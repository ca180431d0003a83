"""Texts to batches: captions, mixing, cache, order. Imports clip and what that imports."""
