import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.domain import FORMATS, Recipe
from pipeline.errors import DecodeError, NotAnImageError, StageError, StoreError, TooManyPixelsError, TruncatedError
from pipeline.stages.codec import SUFFIX_BY_FORMAT, encode_image, open_image, output_format
from pipeline.stages.picture import Picture
from pipeline.stages.resize import resize_image
from tests.stages.pictures import BLUE, GREEN, HOSTILE, RED, assert_close, corners, encode, quadrants

OWNER = "Zoë Müller"


def with_copyright(file_format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = OWNER.encode()
    exif[ExifTags.Base.Copyright] = b"(c) someone"
    exif[ExifTags.Base.Make] = "a camera"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[1] = "N"
    return encode(quadrants(), file_format, exif=exif)


def test_opening_does_not_decode():
    data = encode(Image.new("RGB", (300, 200)))
    assert open_image(data[:200] + b"\0" * 200).size == (300, 200)


@pytest.mark.parametrize("data", [b"", b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(1000)])
def test_bytes_of_no_readable_format_are_named_so(data):
    with pytest.raises(NotAnImageError, match=r"cannot decode: its .* no known image format"):
        open_image(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "JPEG2000"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.9])
def test_cut_off_file_is_an_error(file_format, kept):
    noise = Image.effect_noise((200, 200), 90).convert("RGB")
    data = encode(noise, file_format)
    with pytest.raises(DecodeError, match=r"^cannot decode: "):
        resize_image(data[: int(len(data) * kept)], Recipe())


def test_cut_off_jpeg_is_truncated_even_within_its_header():
    data = encode(quadrants(), "JPEG")
    for length in (20, len(data) - 100):
        with pytest.raises(TruncatedError):
            resize_image(data[:length], Recipe())


def test_size_is_checked_before_anything_is_decoded():
    with pytest.raises(TooManyPixelsError, match=r"^cannot decode: 0\.06 megapixels, limit 0\.05$"):
        open_image(encode(Image.new("RGB", (300, 200)))[:100] + b"junk", max_pixels=50_000)


def test_size_beyond_pillows_own_limit_is_told_alike():
    header = b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    size = (30_000).to_bytes(4, "little") * 2
    data = header + size + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + bytes(24)
    with pytest.raises(TooManyPixelsError, match=r"^cannot decode: 900 megapixels, limit 100$"):
        open_image(data)


@pytest.mark.parametrize(
    ("source", "wanted", "expected"),
    [("PNG", "jpeg", "JPEG"), ("MPO", "same", "JPEG"), ("GIF", "same", "GIF"), ("TGA", "same", "PNG")],
)
def test_output_format(source, wanted, expected):
    assert output_format(source, wanted) == expected


@pytest.mark.parametrize("file_format", SUFFIX_BY_FORMAT)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(64, 32), (1, 1)])
def test_every_mode_is_written_to_every_format(file_format, mode, size):
    picture = Picture(quadrants(*size).convert(mode), file_format)
    encoded = encode_image(picture, Recipe(format="same", quality=95))
    assert encoded.suffix == SUFFIX_BY_FORMAT[file_format]
    reread = Image.open(io.BytesIO(encoded.data))
    assert (reread.format, reread.size) == (file_format, size)
    if size != (1, 1):
        assert_close(corners(reread), corners(picture.image), 12)


@pytest.mark.parametrize("file_format", ["WEBP", "AVIF", "PNG", "TIFF", "GIF", "JPEG2000"])
def test_alpha_is_written_where_the_format_has_it(file_format):
    image = Image.new("RGBA", (32, 32), (*RED, 0))
    image.paste((*BLUE, 255), (16, 0, 32, 32))
    encoded = encode_image(Picture(image, file_format), Recipe(format="same"))
    alpha = Image.open(io.BytesIO(encoded.data)).convert("RGBA").getchannel("A")
    assert_close([alpha.getpixel((4, 4)), alpha.getpixel((28, 4))], [0, 255], 4)


def test_alpha_is_flattened_on_the_background_for_jpeg():
    image = Image.new("RGBA", (32, 32), (*RED, 0))
    encoded = encode_image(Picture(image, "PNG"), Recipe(background="#00ff00", quality=95))
    assert_close(Image.open(io.BytesIO(encoded.data)).getpixel((5, 5)), GREEN, 3)


@pytest.mark.parametrize("file_format", FORMATS)
def test_same_picture_gives_the_same_bytes(file_format):
    recipe = Recipe(format=file_format)
    data = encode(quadrants())
    first, second = (encode_image(resize_image(data, recipe), recipe) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("file_format", ["jpeg", "webp", "avif"])
def test_quality_matters(file_format):
    picture = Picture(Image.effect_noise((64, 64), 60), "PNG")
    small, large = (len(encode_image(picture, Recipe(format=file_format, quality=q)).data) for q in (20, 95))
    assert small < large


@pytest.mark.parametrize("file_format", FORMATS)
def test_no_metadata_is_written(file_format):
    recipe = Recipe(format=file_format)
    encoded = encode_image(resize_image(with_copyright(), recipe), recipe)
    reread = Image.open(io.BytesIO(encoded.data))
    assert not reread.getexif()
    assert not {"exif", "icc_profile", "xmp", "comment"} & reread.info.keys()
    assert b"camera" not in encoded.data
    assert b"someone" not in encoded.data


@pytest.mark.parametrize("file_format", ["jpeg", "webp", "avif", "png", "same"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_copyright_alone_is_kept_if_asked(file_format, source):
    recipe = Recipe(format=file_format, keep_copyright=True)
    encoded = encode_image(resize_image(with_copyright(source), recipe), recipe)
    exif = Image.open(io.BytesIO(encoded.data)).getexif()
    assert exif[ExifTags.Base.Artist].encode("latin-1") == OWNER.encode()
    assert exif[ExifTags.Base.Copyright] == "(c) someone"
    assert not exif.get_ifd(ExifTags.IFD.GPSInfo)
    assert b"camera" not in encoded.data


def test_copyright_of_an_image_without_one_is_nothing():
    assert resize_image(encode(quadrants(), "JPEG"), Recipe(keep_copyright=True)).copyright == b""


def test_encoder_that_fails_is_a_store_error():
    picture = Picture(Image.new("RGB", (17_000, 1)), "PNG")  # One side more than WebP can have.
    with pytest.raises(StoreError, match="cannot encode 17000x1 pixels as WEBP"):
        encode_image(picture, Recipe(format="webp"))


def test_warnings_of_pillow_are_contained():
    data = encode(quadrants(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12junk")
    code = (
        "import sys; from pipeline.domain import Recipe; from pipeline.stages.resize import resize_image\n"
        "resize_image(bytes.fromhex(sys.argv[1]), Recipe(keep_copyright=True))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code, data.hex()], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="needs the folder of hostile files beside the checkout")
def test_hostile_files_give_a_picture_or_a_stage_error():
    paths = sorted(path for path in HOSTILE.iterdir() if path.is_file())
    recipe = Recipe(max_width=120, max_height=80, keep_copyright=True)
    decoded = 0
    for path in paths[:: max(1, len(paths) // 100)]:
        try:
            picture = resize_image(path.read_bytes(), recipe)
        except StageError:
            continue
        decoded += 1
        assert picture.image.mode in {"L", "LA", "RGB", "RGBA"}, path.name
        assert np.asarray(picture.image).dtype == np.uint8, path.name
    assert decoded > 10
