"""The pixel world: a complete miniature Stable Diffusion that ships with the project."""

from pathlib import Path

#: The shipped diffusers pipeline folder.
WEIGHTS = Path(__file__).parent / "weights"
