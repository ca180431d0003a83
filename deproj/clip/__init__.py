"""Texts and pictures to embeddings and states. Imports process, settings, selection and the pixel world."""
