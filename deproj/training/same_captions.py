"""Which captions a run began with, that it goes on with no others, and whether its world knows their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING

from deproj.process.errors import UserError
from deproj.runs.records import CaptionsRecord

if TYPE_CHECKING:
    from deproj.data.settings import DataSettings
    from deproj.data.sources import PromptSource
    from deproj.draw.stable_diffusion import StableDiffusion
    from deproj.runs.folder import RunFolder

__all__ = ["check_captions", "note_captions", "tell_of_changed_captions", "tell_of_strange_words"]

#: So many captions are looked at, and so many words named.
LOOKED, NAMED = 1000, 4


def check_captions(source: PromptSource, folder: RunFolder, steps: int) -> None:
    """Says what was read of the captions.

    Args:
        steps: that the run has behind it.

    Raises:
        UserError: where these were made with other captions.
    """
    if source.said is None:
        return
    known = folder.known_captions()
    if steps and known is not None and known.fingerprint != source.fingerprint:
        raise UserError(
            f"the captions have changed since {folder.path} began with {known.said} Now it is {source.said}\n"
            "Bring the old ones back, or start a new run in another folder."
        )
    print(source.said)


def tell_of_strange_words(source: PromptSource, sd: StableDiffusion, inversions: Collection[str]) -> None:
    """Warns of captions with words that the pixel world has never seen, which its CLIP can't tell from one another.

    Args:
        inversions: words that its text encoder knows beside its own.
    """
    if source.said is None or not sd.miniature:
        return
    texts = dict.fromkeys(islice(source.training(0), LOOKED))
    strange = [found for text in texts if (found := [word for word in sd.never_said(text) if word not in inversions])]
    if strange:
        words = [repr(word) for word, _ in Counter(word for found in strange for word in found).most_common(NAMED)]
        print(
            f"warning: {len(strange)} of {len(texts)} captions that were looked at have words that the pixel world has never "
            f"seen, as {', '.join(words)}. It can only draw {sd.words}; for other captions take sd=sd15."
        )


def note_captions(source: PromptSource, folder: RunFolder) -> None:
    """Notes in a run's folder which captions it is trained on."""
    if source.said is not None:
        folder.write(folder.captions, CaptionsRecord(source.fingerprint, source.said))


def tell_of_changed_captions(data: DataSettings, folder: RunFolder) -> None:
    """Says where the captions of a finished run are no longer those that it was trained on. The Hub is not asked."""
    known = folder.known_captions()
    if known is None or data.prompts is None or data.prompts.startswith("hub:"):
        return
    try:
        fingerprint = data.source().fingerprint
    except UserError as error:
        print(f"The captions of {folder.path} can't be read any more: {error}")
        return
    if fingerprint != known.fingerprint:
        print(f"The captions have changed since {folder.path} was trained; for the new ones, start a run in another folder.")
