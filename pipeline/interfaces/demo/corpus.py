"""A collection of a few hundred files made of six photographs: different in size, format and colour, some broken.

What to make is decided by `plan_corpus`, a pure function; `make_corpus` makes it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from PIL import Image, ImageCms, ImageDraw

from pipeline.interfaces.demo.broken import ANSWERS, BROKEN_FILES

PHOTOGRAPHS: Final = ("astronaut", "chelsea", "coffee", "hubble_deep_field", "retina", "rocket")

SHORTEST_SIDE_PX: Final = 300
ASPECTS: Final = (3 / 2, 4 / 3, 16 / 9, 1.0, 3 / 4, 2 / 3)

# The orientations that cameras write, with the turn that undoes what a viewer will do.
UNDO_ORIENTATION: Final = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """A way to write a file, and how often it occurs.

    Attributes
    ----------
    name : str
    suffix : str
    weight : int
        Share of the files, relative to the others'.
    longest_side_px : int
        Formats that take long to write, or are large, are kept small.
    mode : str
        Pillow's: RGB, RGBA, L, CMYK.
    options : mapping
        For ``Image.save``; fast rather than small.
    """

    name: str
    suffix: str
    weight: int
    longest_side_px: int
    mode: str = "RGB"
    options: Mapping[str, Any] = field(default_factory=dict)


ENCODINGS: Final = (
    Encoding("jpeg", ".jpg", 32, 3000, options={"quality": 88}),
    Encoding("progressive-jpeg", ".jpg", 10, 1600, options={"quality": 85, "progressive": True}),
    Encoding("rotated-jpeg", ".jpg", 8, 2400, options={"quality": 90}),
    Encoding("wide-gamut-jpeg", ".jpg", 5, 1600, options={"quality": 92}),
    Encoding("grey-jpeg", ".jpeg", 5, 2000, "L", {"quality": 85}),
    Encoding("cmyk-jpeg", ".jpg", 3, 1400, "CMYK", {"quality": 90}),
    Encoding("png", ".png", 9, 1400, options={"compress_level": 1}),
    Encoding("alpha-png", ".png", 5, 1000, "RGBA", {"compress_level": 1}),
    Encoding("webp", ".webp", 9, 1600, options={"quality": 80, "method": 0}),
    Encoding("alpha-webp", ".webp", 3, 1000, "RGBA", {"quality": 80, "method": 0}),
    Encoding("avif", ".avif", 4, 1000, options={"quality": 60, "speed": 10, "max_threads": 1}),
    Encoding("tiff", ".tif", 3, 1400, options={"compression": "tiff_lzw"}),
    Encoding("gif", ".gif", 2, 700),
    Encoding("bmp", ".bmp", 2, 800),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One file that shows a part of a photograph.

    Attributes
    ----------
    name : str
        The file's.
    photograph : str
    encoding : Encoding
    size : tuple of int
        Width and height in pixels, as a viewer shows it.
    crop : tuple of float
        How much of the largest part with that aspect is shown, and where it lies: zoom, horizontally, vertically,
        each 0 to 1.
    orientation : int
        The EXIF tag; 1 is none.
    """

    name: str
    photograph: str
    encoding: Encoding
    size: tuple[int, int]
    crop: tuple[float, float, float]
    orientation: int = 1


@dataclass(frozen=True, slots=True)
class Broken:
    """One file, or one answer of the server, that is no image."""

    name: str
    kind: str


def plan_corpus(count: int, seed: int = 0) -> list[Variant | Broken]:
    """Decide what the collection consists of; the same for the same arguments.

    Parameters
    ----------
    count : int
        Of all files and answers. At most one in eight of them is broken, and at most one of each kind.
    seed : int

    Returns
    -------
    list of Variant and Broken
        In the collection's order; the names are unique.
    """
    chance = random.Random(seed)
    kinds = (*BROKEN_FILES, *ANSWERS)
    broken: list[str | None] = list(chance.sample(kinds, min(len(kinds), count // 8)))
    places: list[str | None] = broken + [None] * (count - len(broken))
    chance.shuffle(places)
    # Each encoding by its weight, in turn rather than by chance, so that the rare ones occur too.
    turns = [encoding for encoding in ENCODINGS for _ in range(encoding.weight)]
    chance.shuffle(turns)
    return [
        _plan_broken(number, kind) if kind else _plan_variant(number, turns[number % len(turns)], chance)
        for number, kind in enumerate(places)
    ]


def _plan_broken(number: int, kind: str) -> Broken:
    if kind in ANSWERS:
        return Broken(f"answers/{ANSWERS[kind]}/{number:04}-{kind}.jpg", kind)
    return Broken(f"{number:04}-{kind}{BROKEN_FILES[kind].suffix}", kind)


def _plan_variant(number: int, encoding: Encoding, chance: random.Random) -> Variant:
    photograph = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    aspect = chance.choice(ASPECTS)
    shortest = SHORTEST_SIDE_PX * max(aspect, 1 / aspect)
    # As many images between 300 and 600 pixels as between 1500 and 3000: sizes are spread by their ratio.
    longest = shortest * (encoding.longest_side_px / shortest) ** chance.random()
    width, height = (longest, longest / aspect) if aspect >= 1 else (longest * aspect, longest)
    return Variant(
        name=f"{number:04}-{photograph}-{encoding.name}{encoding.suffix}",
        photograph=photograph,
        encoding=encoding,
        size=(round(width), round(height)),
        crop=(chance.uniform(0.6, 1.0), chance.random(), chance.random()),
        orientation=chance.choice([*UNDO_ORIENTATION]) if encoding.name == "rotated-jpeg" else 1,
    )


def make_corpus(folder: Path, count: int = 216, on_made: Callable[[int, int], None] | None = None) -> list[str]:
    """Make the collection, in parallel.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    count : int
        Files and answers, the broken ones included.
    on_made : callable, optional
        Called with the number made and `count`, after each.

    Returns
    -------
    list of str
        Names relative to the folder, or to the URL at which `serve_folder` serves it. Those that begin with
        ``answers/`` are no files: the server answers them with an error, or with silence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    planned = plan_corpus(count)
    studio = Studio()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = [pool.submit(_write, folder, entry, studio) for entry in planned]
        for done, future in enumerate(as_completed(made), start=1):
            future.result()
            if on_made:
                on_made(done, count)
    return [entry.name for entry in planned]


def _write(folder: Path, entry: Variant | Broken, studio: Studio) -> None:
    if isinstance(entry, Variant):
        (folder / entry.name).write_bytes(studio.render(entry))
    elif entry.kind in BROKEN_FILES:
        whole = studio.render(Variant("", "coffee", ENCODINGS[0], (900, 600), (1.0, 0.5, 0.5)))
        (folder / entry.name).write_bytes(BROKEN_FILES[entry.kind].spoil(whole))


class Studio:
    """The photographs in memory, and what turns them into files."""

    def __init__(self) -> None:
        self._srgb = ImageCms.createProfile("sRGB")
        self._images: dict[str, Image.Image] = {}
        for name in PHOTOGRAPHS:
            with as_file(files("pipeline.interfaces.demo") / "photographs" / f"{name}.jpg") as path:
                image = Image.open(path)
                self._images[name] = self._to_srgb(image)
                if name == "rocket":
                    # The only one in Adobe RGB.
                    self._wide_gamut: bytes = image.info["icc_profile"]

    def render(self, variant: Variant) -> bytes:
        """Return the bytes of a variant's file."""
        encoding = variant.encoding
        image = self._images[variant.photograph]
        box = crop_box(image.size, variant.size, variant.crop)
        image = image.resize(variant.size, Image.Resampling.BICUBIC, box=box)
        options = dict(encoding.options)
        if encoding.name == "wide-gamut-jpeg":
            wide = ImageCms.ImageCmsProfile(BytesIO(self._wide_gamut))
            image = _convert(image, self._srgb, wide)
            options["icc_profile"] = self._wide_gamut
        if encoding.mode == "RGBA":
            image.putalpha(_vignette(image.size))
        elif encoding.mode != "RGB":
            image = image.convert(encoding.mode)
        if variant.orientation != 1:
            image = image.transpose(UNDO_ORIENTATION[variant.orientation])
            options["exif"] = _exif_of(variant.orientation)
        file = BytesIO()
        image.save(file, Image.registered_extensions()[encoding.suffix], **options)
        return file.getvalue()

    def _to_srgb(self, image: Image.Image) -> Image.Image:
        profile = image.info.get("icc_profile")
        if not profile:
            return image.convert("RGB")
        return _convert(image, ImageCms.ImageCmsProfile(BytesIO(profile)), self._srgb)


def crop_box(
    photograph: tuple[int, int], wanted: tuple[int, int], crop: tuple[float, float, float]
) -> tuple[float, float, float, float]:
    """Return the part of a photograph to show: left, top, right, bottom, with the aspect that is wanted."""
    zoom, across, down = crop
    scale = zoom * min(photograph[0] / wanted[0], photograph[1] / wanted[1])
    width, height = wanted[0] * scale, wanted[1] * scale
    left, top = across * (photograph[0] - width), down * (photograph[1] - height)
    # Rounding must not reach beyond the edge.
    return left, top, min(left + width, photograph[0]), min(top + height, photograph[1])


def _convert(image: Image.Image, source: Any, target: Any) -> Image.Image:
    converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    assert converted is not None
    converted.info.pop("icc_profile", None)
    return converted


def _vignette(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).ellipse((0, 0, *size), fill=255)
    return mask


def _exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif
