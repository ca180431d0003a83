"""What the page says."""

from __future__ import annotations

from deproj.draw.sheets import TRUE_STATES

__all__ = ["ABOUT", "ABOUT_MODELS", "EXAMPLES", "HELP", "caption"]

ABOUT = """# deproj
CLIP sums up a text, or a picture, in one list of numbers: its *embedding*. Stable Diffusion draws from 77 such lists. A
**deprojector** makes the 77 out of the one, so that embeddings can be added, mixed, and drawn."""

ABOUT_MODELS = "best and small are made for good pictures. The others are the experiments of the article that this began with."

EXAMPLES = ("cat, maid", "1girl, red hair, blue eye, black skirt", "1boy, 1girl, in class room", "cat maid | 1boy @ 0.4")

HELP = """
| you type | it means |
|---|---|
| `cat, maid` | the embeddings of *cat* and *maid*, added up |
| `cat maid` | the embedding of the one text *cat maid* |
| `red hair:1.2` | weighted |
| `1girl, -red hair` | taken away |
| `cat \\| 1boy @ 0.3` | 30 % of the way from one to the other |
| `<photo>, red hair` | the picture that you dropped in, and red hair |

*Strength* blends from the true states (0) to the deprojector's (1). *Guidance* is how closely the drawing follows them. The
*seed* is the noise that a picture begins with: the same settings with the same seed give the same picture."""


def caption(name: str, main: str) -> str:
    """What a row of pictures is, in plain words."""
    if name == TRUE_STATES:
        return f"**{TRUE_STATES.capitalize()}**: from the whole text, without a deprojector. The others should look like this."
    return f"**From the embedding alone**, by `{name}`{'.' if name == main else ', to compare.'}"
