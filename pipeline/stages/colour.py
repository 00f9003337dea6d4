"""Colours: from whatever mode and profile a file has to 8-bit sRGB."""

from __future__ import annotations

import io
from functools import lru_cache
from itertools import product
from typing import Final

import numpy as np
from PIL import Image, ImageCms

_SCALABLE: Final = frozenset({"L", "LA", "RGB", "RGBA", "CMYK"})
_OPAQUE_MODE: Final = {"LA": "L", "RGBA": "RGB"}
_SAMPLE_BITS: Final = {"L;2": 2, "L;4": 4, "RGB;16B": 16}


def note_sample_bits(image: Image.Image) -> None:
    """Scale a PNG's transparent colour as Pillow scales its samples; to be called before its pixels are loaded.

    Pillow widens samples of 2 and 4 bits to 8, and drops the lower half of 16-bit ones, but keeps the colour that
    is to be transparent as the file has it, so that it would match nothing.
    """
    transparent = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    if transparent is None or image.format != "PNG" or not tiles:
        return
    bits = _SAMPLE_BITS.get(tiles[0].args, 8)
    if bits == 16:
        image.info["transparency"] = tuple(level >> 8 for level in transparent)
    elif bits < 8:
        image.info["transparency"] = min(255, transparent * 255 // (2**bits - 1))


def to_scalable(image: Image.Image) -> Image.Image:
    """Convert a loaded image, of any mode, to L, LA, RGB, RGBA or CMYK with 8 bits a channel.

    Alpha and a transparent colour are kept. By rule: samples of 16 bits and 32-bit integers go from 0, black, to
    65535, white; floats from 0 to 1, or to 255 if any is above 1; what is outside is clipped, NaN is black.
    """
    if image.mode in _SCALABLE and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return _narrowed(image)
    if image.mode in {"1", "L", "La", "LA"}:
        return image.convert("LA" if image.has_transparency_data else "L")
    if image.mode == "CMYK":
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert an image to sRGB, and from CMYK to RGB.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode L, LA, RGB, RGBA or CMYK.
    profile : bytes or None
        Its ICC profile. None, one that is broken and one for another mode are taken for sRGB.

    Returns
    -------
    PIL.Image.Image
        Mode L, LA, RGB or RGBA; grey stays grey. The image itself if there is nothing to do.
    """
    colour_mode = _OPAQUE_MODE.get(image.mode, image.mode)
    transform = _transform_to_srgb(profile, colour_mode) if profile else None
    if transform is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    converted = transform.apply(image if image.mode == colour_mode else image.convert(colour_mode))
    if colour_mode == "L":
        converted = converted.convert("L")
    if image.mode != colour_mode:
        converted.putalpha(image.getchannel("A"))
    return converted


@lru_cache(maxsize=32)
def _transform_to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform; None if the profile is unusable for that mode, or is sRGB already."""
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    return None if mode != "CMYK" and _is_identity(transform, mode) else transform


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform changes no colour by more than one level. There are dozens of sRGB profiles and names."""
    levels = range(0, 256, 15)
    samples = np.array(list(product(levels, repeat=3)) if mode == "RGB" else [[level] * 3 for level in levels])
    image = Image.fromarray(samples.astype(np.uint8)[np.newaxis])
    converted = np.asarray(transform.apply(image.convert(mode)))[0]
    return bool(np.abs(converted.astype(int) - samples).max() <= 1)


def _narrowed(image: Image.Image) -> Image.Image:
    """Scale a grey image of more than 8 bits (modes I, I;16… and F) to L, or LA if it has a transparent level."""
    levels = np.asarray(image)
    if image.mode == "F":
        known = np.nan_to_num(levels, nan=0.0)
        white = 255.0 if known.max() > 1 else 1.0
        narrow = np.rint(np.clip(known, 0, white) * (255 / white))
    else:
        narrow = (np.clip(levels, 0, 65535).astype(np.uint32) + 128) // 257
    grey = Image.fromarray(narrow.astype(np.uint8))
    transparent = image.info.get("transparency")
    if transparent is not None:
        grey.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
    grey.info["icc_profile"] = image.info.get("icc_profile")
    return grey
