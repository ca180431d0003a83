"""Texts to batches: captions, held-out ones, mixing, cache, order. Imports `deproj.clip` and the floors below it."""
