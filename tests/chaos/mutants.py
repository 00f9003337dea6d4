"""Broken image files by the thousand: made of whole ones, by chance and the same each time."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from tests.fixtures.photographs import make_photograph

Mutation = Callable[[bytearray, random.Random], bytes]

# Numbers that sizes, counts and offsets are not to be.
_EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def seeds() -> list[bytes]:
    """Make whole files of every format that is read, small ones."""
    photograph = Image.open(io.BytesIO(make_photograph(0, 96, 64)))
    transparent = photograph.convert("RGBA")
    transparent.putalpha(photograph.convert("L"))
    grey = photograph.convert("L")
    palette = photograph.quantize(32)
    ways = [
        (photograph, "JPEG", {}),
        (photograph, "JPEG", {"progressive": True, "quality": 95, "subsampling": 0}),
        (photograph.convert("CMYK"), "JPEG", {}),
        (photograph, "PNG", {}),
        (transparent, "PNG", {}),
        (palette, "PNG", {}),
        (grey.convert("I;16"), "PNG", {}),
        (photograph, "WEBP", {}),
        (transparent, "WEBP", {"lossless": True}),
        (photograph, "AVIF", {"speed": 10}),
        (palette, "GIF", {"save_all": True, "append_images": [palette.rotate(90)] * 3}),
        (photograph, "TIFF", {"compression": "tiff_lzw"}),
        (photograph, "TIFF", {"compression": "jpeg"}),
        (grey.convert("F"), "TIFF", {}),
        (photograph.convert("1"), "TIFF", {"compression": "group4"}),
        (photograph, "BMP", {}),
        (palette, "BMP", {}),
        (photograph, "JPEG2000", {}),
        (transparent.resize((64, 64)), "ICO", {}),
        (photograph, "PPM", {}),
        (photograph.resize((24, 16)), "QOI", {}),
        (photograph, "TGA", {"compression": "tga_rle"}),
        (photograph, "MPO", {"save_all": True, "append_images": [photograph.rotate(90)]}),
    ]
    made = []
    for image, file_format, options in ways:
        file = io.BytesIO()
        image.save(file, file_format, **options)
        made.append(file.getvalue())
    return made


def mutants(count: int, whole: Sequence[bytes], seed: int) -> Iterator[bytes]:
    """Yield so many broken files; the same for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        data = bytearray(whole[number % len(whole)])
        for _ in range(chance.choice((1, 1, 2, 5))):
            if data:
                data = bytearray(chance.choice(_MUTATIONS)(data, chance))
        yield bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """Choose a place, more often than not in the header."""
    return chance.randrange(min(len(data), 128) if chance.random() < 0.6 else len(data))


def _flip(data: bytearray, chance: random.Random) -> bytes:
    data[_place(data, chance)] ^= 1 << chance.randrange(8)
    return data


def _overwrite(data: bytearray, chance: random.Random) -> bytes:
    start = _place(data, chance)
    data[start : start + chance.randrange(1, 64)] = chance.randbytes(chance.randrange(1, 64))
    return data


def _exaggerate(data: bytearray, chance: random.Random) -> bytes:
    start, size = _place(data, chance), chance.choice((1, 2, 4))
    number = chance.choice(_EXTREMES) & ((1 << 8 * size) - 1)
    data[start : start + size] = number.to_bytes(size, chance.choice(("little", "big")))
    return data


def _truncate(data: bytearray, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _remove(data: bytearray, chance: random.Random) -> bytes:
    start = _place(data, chance)
    del data[start : start + chance.randrange(1, 256)]
    return data


def _repeat(data: bytearray, chance: random.Random) -> bytes:
    start = _place(data, chance)
    part = data[start : start + chance.randrange(1, 512)]
    return data[:start] + part * chance.randrange(1, 8) + data[start:]


def _empty(data: bytearray, chance: random.Random) -> bytes:
    start, size = _place(data, chance), chance.randrange(1, 512)
    data[start : start + size] = bytes(size)
    return data


_MUTATIONS: tuple[Mutation, ...] = (
    _flip,
    _flip,
    _overwrite,
    _exaggerate,
    _exaggerate,
    _truncate,
    _remove,
    _repeat,
    _empty,
)
