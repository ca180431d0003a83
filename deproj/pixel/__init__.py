"""The pixel world: a complete miniature Stable Diffusion that ships with the project."""

from pathlib import Path

from deproj.process.files import intact

#: The shipped diffusers pipeline folder.
WEIGHTS = Path(__file__).parent / "weights"


def world() -> Path:
    """The shipped folder, once its weights have been checked.

    Raises:
        UserError: for weights that are missing or damaged.
    """
    return intact(WEIGHTS)
