"""Every pixel format becomes 8-bit RGB by a fixed rule (faults 43 and 44)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageCms

from nonet.runtime.errors import UndecodableMedia
from nonet.runtime.images import ImageLimits, decode_image

Encode = Callable[..., bytes]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, depth: int, colour: int, rows: list[bytes], *extra: bytes) -> bytes:
    """A PNG written by hand: ``rows`` are the packed samples of each line."""
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"".join(b"\x00" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + ihdr + b"".join(extra) + body + chunk(b"IEND", b"")


def rgb(data: bytes) -> list[list[int]]:
    """The first line of the decoded picture."""
    return decode_image(data).pixels[0].tolist()


def grey(*levels: int) -> list[list[int]]:
    return [[level] * 3 for level in levels]


WHITE = [255, 255, 255]


def test_grey_of_1_2_4_and_8_bits_is_spread_over_the_whole_range() -> None:
    assert rgb(png(8, 1, 0, [b"\xa3"])) == grey(255, 0, 255, 0, 0, 0, 255, 255)
    assert rgb(png(4, 2, 0, [b"\x1b"])) == grey(0, 85, 170, 255)
    assert rgb(png(4, 4, 0, [b"\x01\xef"])) == grey(0, 17, 238, 255)
    assert rgb(png(3, 8, 0, [b"\x00\x7f\xff"])) == grey(0, 127, 255)


def test_of_16_bits_the_high_byte_counts() -> None:
    levels = struct.pack(">4H", 0x0000, 0x12FF, 0x8000, 0xFFFF)
    assert rgb(png(4, 16, 0, [levels])) == grey(0, 0x12, 0x80, 0xFF)
    assert rgb(png(1, 16, 2, [struct.pack(">3H", 0x1234, 0xABCD, 0xFF01)])) == [[0x12, 0xAB, 0xFF]]
    assert rgb(png(1, 16, 4, [struct.pack(">2H", 0x4000, 0xFFFF)])) == grey(0x40)
    assert rgb(png(1, 16, 6, [struct.pack(">4H", 0x1000, 0x2000, 0x3000, 0xFFFF)])) == [[0x10, 0x20, 0x30]]


def test_a_transparent_colour_becomes_white() -> None:
    def key(*levels: int) -> bytes:
        return chunk(b"tRNS", struct.pack(f">{len(levels)}H", *levels))

    assert rgb(png(8, 1, 0, [b"\xa3"], key(0))) == [WHITE] * 8
    assert rgb(png(4, 2, 0, [b"\x1b"], key(1))) == grey(0, 255, 170, 255)
    assert rgb(png(4, 4, 0, [b"\x01\xef"], key(14))) == grey(0, 17, 255, 255)
    assert rgb(png(3, 8, 0, [b"\x00\x7f\xff"], key(0x7F))) == grey(0, 255, 255)
    assert rgb(png(2, 16, 0, [struct.pack(">2H", 0x1234, 0x1235)], key(0x1234))) == grey(255, 0x12)
    assert rgb(png(2, 8, 2, [b"\x01\x02\x03\x01\x02\x04"], key(1, 2, 3))) == [WHITE, [1, 2, 4]]


def test_a_palette_with_and_without_transparency() -> None:
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    assert rgb(png(3, 8, 3, [b"\x00\x01\x02"], palette)) == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert rgb(png(3, 2, 3, [b"\x18"], palette)) == [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    opacity = chunk(b"tRNS", bytes([0, 51]))
    pixels = rgb(png(3, 8, 3, [b"\x00\x01\x02"], palette, opacity))
    assert pixels == [WHITE, [212, 214, 216], [70, 80, 90]]  # 40 * 0.2 + 255 * 0.8 = 212


def test_alpha_is_laid_on_white() -> None:
    assert rgb(png(3, 8, 4, [b"\x00\xff\x00\x00\x00\x33"])) == grey(0, 255, 204)
    pixels = rgb(png(2, 8, 6, [bytes([200, 100, 50, 51, 9, 8, 7, 255])]))
    assert pixels == [[244, 224, 214], [9, 8, 7]]


def test_alpha_of_webp_and_tiff_is_laid_on_white(encode: Encode) -> None:
    image = Image.new("RGBA", (4, 4), (200, 100, 50, 51))
    for data in (encode(image, "WEBP", lossless=True, exact=True), encode(image, "TIFF")):
        assert rgb(data) == [[244, 224, 214]] * 4


def test_a_gif_frame_smaller_than_the_screen_lies_on_white(encode: Encode) -> None:
    data = encode(Image.new("P", (2, 2), 0), "GIF", transparency=None)
    frame = data.index(b"\x2c")
    wide = (
        data[:6]
        + struct.pack("<HH", 4, 3)
        + data[10 : frame + 1]
        + struct.pack("<HH", 1, 1)
        + data[frame + 5 :]
    )
    pixels = decode_image(wide).pixels
    assert pixels.shape == (3, 4, 3)
    inside = np.zeros((3, 4), dtype=bool)
    inside[1:3, 1:3] = True
    assert (pixels[~inside] == 255).all()
    assert (pixels[inside] == 0).all()


@pytest.mark.parametrize("transform", ["CMYK", "YCCK"])
def test_cmyk_and_ycck_hold_inverted_values(transform: str, encode: Encode) -> None:
    image = Image.new("CMYK", (16, 16), (255, 0, 128, 51))
    data = encode(image, "JPEG", quality=100, subsampling=0)
    assert b"Adobe" in data
    if transform == "YCCK":
        data = _as_ycck(image)
    expected = [0, 255 * 204 // 255, 127 * 204 // 255]
    assert np.abs(decode_image(data).pixels.astype(int) - expected).max() <= 3


def _as_ycck(image: Image.Image) -> bytes:
    """The same picture as YCCK: libjpeg turns YCC into RGB and takes 255 - RGB for the stored CMY."""
    cyan, magenta, yellow, black = image.split()
    stored = [*Image.merge("RGB", (cyan, magenta, yellow)).convert("YCbCr").split(), black.point(_invert)]
    buffer = io.BytesIO()
    Image.merge("CMYK", [plane.point(_invert) for plane in stored]).save(
        buffer, "JPEG", quality=100, subsampling=0
    )
    marked = bytearray(buffer.getvalue())
    marked[marked.index(b"Adobe") + 11] = 2
    return bytes(marked)


def _invert(level: int) -> int:
    return 255 - level


def swapped_profile() -> bytes:
    """A profile whose red and blue primaries are exchanged: converting from it exchanges the channels."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = profile.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    return profile.replace(b"rXYZ", b"tmp ").replace(b"bXYZ", b"rXYZ").replace(b"tmp ", b"bXYZ")


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_an_embedded_profile_is_converted_to_srgb(kind: str, encode: Encode) -> None:
    image = Image.new("RGB", (16, 16), (200, 120, 40))
    options = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}, "JPEG": {"quality": 100, "subsampling": 0}}
    data = encode(image, kind, icc_profile=swapped_profile(), **options[kind])
    assert np.abs(decode_image(data).pixels.astype(int) - [40, 120, 200]).max() <= 2


def test_a_profile_applies_below_transparency(encode: Encode) -> None:
    image = Image.new("RGBA", (4, 4), (200, 120, 40, 51))
    pixels = decode_image(encode(image, "PNG", icc_profile=swapped_profile())).pixels
    assert np.abs(pixels.astype(int) - [212, 228, 244]).max() <= 1


@pytest.mark.parametrize("kind", ["damaged", "too large", "of another colour space"])
def test_a_profile_that_cannot_be_used_is_ignored(kind: str, encode: Encode, picture: Image.Image) -> None:
    profile = swapped_profile()
    limits = ImageLimits(profile_bytes=100) if kind == "too large" else ImageLimits()
    image = picture.convert("L") if kind == "of another colour space" else picture
    if kind == "damaged":
        profile = profile[:200] + bytes(len(profile) - 200)
    for format_name in ("PNG", "JPEG"):
        plain = decode_image(encode(image, format_name)).pixels
        profiled = decode_image(encode(image, format_name, icc_profile=profile), limits=limits).pixels
        np.testing.assert_array_equal(profiled, plain)


def test_pixels_without_a_rule_are_refused(encode: Encode) -> None:
    for mode in ("F", "I"):
        with pytest.raises(UndecodableMedia, match=r"no brightness is defined.*accepted"):
            decode_image(encode(Image.new(mode, (4, 4)), "TIFF"))


def bmp(pixels: bytes, masks: tuple[int, int, int, int], depth: int = 32) -> bytes:
    """A BMP of two pixels with a header of version 4 and the given bit masks."""
    info = struct.pack("<IiiHHIIiiII", 108, 2, 1, 1, depth, 3, len(pixels), 2835, 2835, 0, 0)
    info += struct.pack("<4I", *masks) + bytes(52)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(pixels), 0, 0, 14 + len(info)) + info + pixels


def test_opacity_in_a_bmp_is_none_where_it_would_hide_everything() -> None:
    masks = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    assert rgb(bmp(bytes([30, 20, 10, 0, 60, 50, 40, 0]), masks)) == [[10, 20, 30], [40, 50, 60]]
    assert rgb(bmp(bytes([30, 20, 10, 255, 60, 50, 40, 0]), masks)) == [[10, 20, 30], WHITE]


def test_sound_files_of_other_kinds_are_415_and_never_called_damaged(corpus: dict[str, bytes]) -> None:
    """Masks of ten bits, a header of OS/2, two bits a pixel; JPEG of two components or without its height."""
    jpeg = bytearray(corpus["jpeg"])
    frame = jpeg.index(b"\xff\xc0")
    without_height = bytes(jpeg[: frame + 5] + b"\x00\x00" + jpeg[frame + 7 :])
    two = jpeg[: frame + 2] + struct.pack(">H", 14) + jpeg[frame + 4 : frame + 9] + b"\x02"
    two_components = bytes(two + jpeg[frame + 10 : frame + 16] + jpeg[frame + 19 :])
    ten_bits = bmp(bytes(8), (0x3FF00000, 0xFFC00, 0x3FF, 0))
    old_header = bytearray(corpus["bmp"])
    struct.pack_into("<I", old_header, 14, 16)
    two_bits = bytearray(corpus["bmp"])
    struct.pack_into("<H", two_bits, 28, 2)
    for data in (without_height, two_components, ten_bits, bytes(old_header), bytes(two_bits)):
        with pytest.raises(UndecodableMedia, match="not decoded"):
            decode_image(data)


def test_an_srgb_profile_changes_nothing(encode: Encode, picture: Image.Image) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = decode_image(encode(picture, "PNG")).pixels
    np.testing.assert_array_equal(decode_image(encode(picture, "PNG", icc_profile=profile)).pixels, plain)
