"""The stage that decodes an image, scales it to its box and turns it upright."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from cykooz_resizer import CropBox, FilterType, ResizeAlg, ResizeOptions, Resizer
from PIL import ExifTags, Image

from pipeline.domain import ImageLimits, Recipe
from pipeline.errors import DecodeError, TruncatedError
from pipeline.stages.codec import (
    CODEC_ERRORS,
    copyright_block,
    flatten_alpha,
    open_image,
    output_format,
    translated_errors,
)
from pipeline.stages.colour import note_sample_bits, to_scalable, to_srgb
from pipeline.stages.picture import Picture, Placement
from pipeline.stages.weight import require_light

Size = tuple[int, int]
Box = tuple[float, float, float, float]

_USUAL: Final = ImageLimits()
_LANCZOS: Final = ResizeAlg.convolution(FilterType.lanczos3)
_SCALED_WHILE_DECODED: Final = frozenset({"JPEG", "MPO"})
_TURN_BY_ORIENTATION: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """How an image comes into its box; in pixels, (width, height), of the upright image.

    Attributes
    ----------
    crop : tuple of float
        The part of the source that is used: left, top, right, bottom.
    size : tuple of int
        What that part is scaled to.
    canvas : tuple of int
        The result's size; larger than `size` only for ``contain``.
    offset : tuple of int
        Where the scaled part lies on the canvas: left, top.
    """

    crop: Box
    size: Size
    canvas: Size
    offset: tuple[int, int]


def plan_geometry(size: Size, recipe: Recipe, growth: int = 1) -> Geometry:
    """Decide how an image comes into the Recipe's box.

    Parameters
    ----------
    size : tuple of int
        Width and height of the upright image.
    recipe : Recipe
        Its box, `fit` and `enlarge`, as CSS ``object-fit`` and sharp's ``withoutEnlargement`` define them. Sizes
        are rounded as Pillow's ``ImageOps.contain`` and ``fit`` round them, and no side is ever 0.
    growth : int
        How many times larger an image may become, a side, even if the Recipe does not enlarge: the model's scale.
    """
    width, height = size
    box = (recipe.max_width, recipe.max_height)
    largest = box if recipe.enlarge else (min(box[0], growth * width), min(box[1], growth * height))
    crop: Box = (0, 0, width, height)
    if recipe.fit == "fill":
        scaled = largest
    elif recipe.fit == "cover":
        crop, scaled = _cover(size, box, math.inf if recipe.enlarge else growth)
    elif largest == (growth * width, growth * height):
        scaled = largest
    else:
        scaled = _size_inside(size, largest if width <= box[0] and height <= box[1] else box)
    canvas = box if recipe.fit == "contain" else scaled
    return Geometry(crop, scaled, canvas, ((canvas[0] - scaled[0]) // 2, (canvas[1] - scaled[1]) // 2))


def resize_image(data: bytes, recipe: Recipe, *, model_scale: int = 1, limits: ImageLimits = _USUAL) -> Picture:
    """Decode an image file, convert it to sRGB, scale it (Lanczos) and turn it upright.

    For a model that enlarges, an image that is to grow keeps its size, and has a `Placement`.

    Of an animated image, the first frame is taken. Scaling works on gamma-encoded samples, alpha premultiplied;
    ``contain`` lays the image on an opaque canvas.

    Parameters
    ----------
    data : bytes
        A whole image file.
    recipe : Recipe
    model_scale : int
        The enhancement model's, which may make an image that many times larger, a side.
    limits : ImageLimits
        What it may take, which is checked before anything is decoded.

    Raises
    ------
    DecodeError
        Or one of its children, if the bytes are no usable image.
    TooHeavyError, TooSlowError
        If it takes more than it may.
    """
    image = open_image(data, max_pixels=limits.max_pixels)
    source_format = image.format or ""
    result_format = output_format(source_format, recipe.format)
    require_light(image, _result_pixels(image.size, recipe, model_scale), result_format, limits)
    note_sample_bits(image)
    with translated_errors(TruncatedError, limits.max_pixels):
        if source_format not in _SCALED_WHILE_DECODED:
            image.load()  # Only then is the orientation known: PNG may have it last, TIFF is turned by Pillow.
        orientation = _read_orientation(image)
        geometry = plan_geometry(_turned(image.size, orientation), recipe, model_scale)
        placement = _placement(geometry, recipe.background) if model_scale > 1 else None
        if placement:
            geometry = _unscaled(geometry)
        crop, size = _as_stored(geometry, image.size, orientation)
        crop = _decode_near(image, crop, size)
    # What broken files hold beside their samples, a palette or a profile, may make Pillow fail only here.
    with translated_errors(DecodeError, limits.max_pixels):
        owner = copyright_block(image) if recipe.keep_copyright else b""
        profile = image.info.get("icc_profile")
        # Profile and orientation after scaling: mostly fewer pixels. CMYK has to be scaled as it is, for its profile.
        upright = _turn_upright(to_srgb(_scale(to_scalable(image), crop, size), profile), orientation)
        finished = _on_canvas(upright, geometry, recipe.background)
    return Picture(_without_metadata(finished), source_format, owner, placement)


def _result_pixels(size: Size, recipe: Recipe, model_scale: int) -> int:
    """Return the pixels of the result, whichever way up the image is."""
    canvases = (plan_geometry(each, recipe, model_scale).canvas for each in (size, size[::-1]))
    return max(width * height for width, height in canvases)


def place_image(image: Image.Image, placement: Placement) -> Image.Image:
    """Do to an enlarged image what `resize_image` left undone: scale it (Lanczos) and lay it on its canvas."""
    scaled = scale_image(image, placement.size)
    return _on_canvas(scaled, placement, placement.background)


def scale_image(image: Image.Image, size: Size) -> Image.Image:
    """Scale a whole image with a Lanczos filter; the image itself if it has that size.

    Parameters
    ----------
    image : PIL.Image.Image
        Mode L, LA, RGB or RGBA; alpha is premultiplied while it is scaled.
    size : tuple of int
        Width and height.
    """
    return _scale(image, (0, 0, *image.size), size)


def _placement(geometry: Geometry, background: str) -> Placement | None:
    """Say what is left to do after a model has enlarged the image; None if the image does not grow."""
    left, top, right, bottom = geometry.crop
    if geometry.size[0] <= right - left and geometry.size[1] <= bottom - top:
        return None
    return Placement(geometry.size, geometry.canvas, geometry.offset, background)


def _unscaled(geometry: Geometry) -> Geometry:
    """Only crop, at whole pixels."""
    left, top, right, bottom = map(round, geometry.crop)
    size = (max(1, right - left), max(1, bottom - top))
    return Geometry((left, top, left + size[0], top + size[1]), size, size, (0, 0))


def _cover(size: Size, box: Size, most: float) -> tuple[Box, Size]:
    """Crop centrally what sticks out of the box, and scale the rest, to at most `most` times its size."""
    (width, height), (box_width, box_height) = size, box
    scale = max(box_width / width, box_height / height)
    if scale == 1 or scale > most:
        # It fits exactly, or would have to grow too much: it is cropped where it is then too large.
        factor = 1 if scale == 1 else int(most)
        kept = (min(factor * width, box_width), min(factor * height, box_height))
        used = (-(-kept[0] // factor), -(-kept[1] // factor))
        column, row = (width - used[0]) // 2, (height - used[1]) // 2
        return (column, row, column + used[0], row + used[1]), kept
    crop_width = min(width, height * box_width / box_height)
    crop_height = min(height, width * box_height / box_width)
    left, top = (width - crop_width) / 2, (height - crop_height) / 2
    return (left, top, left + crop_width, top + crop_height), box


def _size_inside(size: Size, box: Size) -> Size:
    """Scale a size, keeping its aspect, until it touches the box from within."""
    (width, height), (box_width, box_height) = size, box
    if width / height > box_width / box_height:
        return box_width, min(box_height, max(1, round(height / width * box_width)))
    return min(box_width, max(1, round(width / height * box_height))), box_height


def _read_orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except CODEC_ERRORS:
        return 1  # Broken EXIF must not cost the image.
    return orientation if orientation in _TURN_BY_ORIENTATION else 1


def _turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURN_BY_ORIENTATION.get(orientation)
    return image if turn is None else image.transpose(turn)


def _turned(size: Size, orientation: int) -> Size:
    return (size[1], size[0]) if orientation >= 5 else size


def _as_stored(geometry: Geometry, stored_size: Size, orientation: int) -> tuple[Box, Size]:
    """Give the crop box and the scaled size in the axes of the image before it is turned upright."""
    left, top, right, bottom = geometry.crop
    width, height = _turned(stored_size, orientation)
    if orientation in {2, 3, 6, 7}:
        left, right = width - right, width - left
    if orientation in {3, 4, 7, 8}:
        top, bottom = height - bottom, height - top
    crop = (top, left, bottom, right) if orientation >= 5 else (left, top, right, bottom)
    return crop, _turned(geometry.size, orientation)


def _decode_near(image: Image.Image, crop: Box, size: Size) -> Box:
    """Decode the pixels, if the format can at 1/2, 1/4 or 1/8 of the size; return the crop box within them."""
    needed = tuple(
        # Less a little, so that an error of floats does not ask for one pixel too many.
        math.ceil(full * scaled / (end - start) - 1e-6)
        for full, scaled, start, end in zip(image.size, size, crop[:2], crop[2:], strict=True)
    )
    full_width = image.width
    drafted = image.draft(None, (needed[0], needed[1]))
    image.load()
    if drafted is None:
        return crop
    # The last column and row of a reduced image may stand for less than a whole one: scale by the exact factor.
    factor = drafted[1][2] / full_width
    left, top, right, bottom = (edge * factor for edge in crop)
    return left, top, min(right, image.width), min(bottom, image.height)


def _scale(image: Image.Image, crop: Box, size: Size) -> Image.Image:
    """Scale a part of an image to a size; the image itself if there is nothing to do."""
    left, top, right, bottom = crop
    if (right - left, bottom - top) == size and left == int(left) and top == int(top):
        return image if size == image.size else image.crop((int(left), int(top), int(right), int(bottom)))
    if image.mode == "LA":
        return _scale(image.convert("RGBA"), crop, size).convert("LA")
    box = None if crop == (0, 0, *image.size) else CropBox(left, top, right - left, bottom - top)
    scaled = Image.new(image.mode, size)
    # A Resizer costs a microsecond to make, and one that is shared makes threads wait for each other.
    Resizer().resize_pil(image, scaled, ResizeOptions(resize_alg=_LANCZOS, crop_box=box))
    return scaled


def _on_canvas(image: Image.Image, geometry: Geometry | Placement, background: str) -> Image.Image:
    if geometry.canvas == geometry.size:
        return image
    if image.has_transparency_data:
        image = flatten_alpha(image, background)
    is_grey = image.mode == "L" and background[1:3] == background[3:5] == background[5:7]
    canvas = Image.new("L" if is_grey else "RGB", geometry.canvas, background)
    canvas.paste(image, geometry.offset)
    return canvas


def _without_metadata(image: Image.Image) -> Image.Image:
    """Drop what Pillow would carry into the output, and the open file that an unscaled image still hangs on."""
    clean = image if type(image) is Image.Image else image.copy()
    clean.info.clear()
    return clean
