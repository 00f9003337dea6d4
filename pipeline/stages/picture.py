"""What passes from one stage to the next."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, slots=True)
class Placement:
    """What an image that a model enlarges still has to become; in pixels, (width, height).

    Attributes
    ----------
    size : tuple of int
        What the enlarged image is scaled to.
    canvas : tuple of int
        The result's size; larger than `size` only for the fit ``contain``.
    offset : tuple of int
        Where the scaled image lies on the canvas: left, top.
    background : str
        The canvas' colour, ``#rrggbb``.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    offset: tuple[int, int]
    background: str


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
    placement : Placement or None
        Set if the image is smaller than it is to be, for a model that enlarges it; None if it has its size.
    """

    image: Image.Image
    source_format: str
    copyright: bytes = b""
    placement: Placement | None = None
