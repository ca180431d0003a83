"""The text encoder, by the name that users import; it stands in `deproj.clip.encoder`."""

from deproj.clip.encoder import Encoded, TextEncoder, locate

__all__ = ["Encoded", "TextEncoder", "locate"]
