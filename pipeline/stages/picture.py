"""What passes from one stage to the next."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded image, ready to be enhanced or encoded.

    Attributes
    ----------
    image : PIL.Image.Image
        Mode L, LA, RGB or RGBA with 8 bits a channel, in sRGB, upright, with no metadata.
    source_format : str
        Pillow's name of the format that it was decoded from, such as ``JPEG``.
    copyright : bytes
        An EXIF block that holds Artist and Copyright and nothing else; empty if the source has neither, or the
        Recipe does not ask for them.
    """

    image: Image.Image
    source_format: str
    copyright: bytes = b""
