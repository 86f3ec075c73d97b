"""What an image may cost is decided from its header; other formats are refused (faults 41, 45-47)."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFile

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, UndecodableMedia
from nonet.runtime.images import ImageLimits, decode_image

Encode = Callable[..., bytes]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *extra: bytes, data: bytes = b"") -> bytes:
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    body = chunk(b"IDAT", data or zlib.compress(bytes((width + 1) * height)))
    return b"\x89PNG\r\n\x1a\n" + ihdr + b"".join(extra) + body + chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    side = 50_000
    row = zlib.compress(bytes(1 << 20))
    huge = struct.pack(">HH", side, side)
    riff = b"VP8X" + struct.pack("<I", 10) + bytes(4) + struct.pack("<I", side)[:3] * 2
    return {
        "png": png(side, side, data=row * 900),
        "jpeg": b"\xff\xd8\xff\xc0\x00\x11\x08"
        + huge
        + b"\x03\x01\x22\x00\x02\x11\x01\x03\x11\x01"
        + bytes(99),
        "gif": b"GIF89a" + struct.pack("<HHBBB", side, side, 0, 0, 0) + b"\x3b",
        "gif frame": b"GIF89a"
        + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
        + b"\x2c"
        + struct.pack("<HHHHB", 0, 0, side, side, 0)
        + b"\x08\x00\x3b",
        "webp": b"RIFF" + struct.pack("<I", 4 + len(riff)) + b"WEBP" + riff,
        "bmp": b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, side, -side, 1, 24, 0) + bytes(99),
        "tiff": b"II\x2a\x00\x08\x00\x00\x00\x02\x00"
        + struct.pack("<HHII", 256, 4, 1, side)
        + struct.pack("<HHII", 257, 4, 1, side)
        + bytes(4),
    }


@pytest.mark.parametrize("kind", sorted(bombs()))
def test_too_many_pixels_are_refused_from_the_header(kind: str) -> None:
    data = bombs()[kind]
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooLarge) as caught:
            decode_image(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.code == "IMAGE_TOO_LARGE"
    assert "limit" in caught.value.message
    assert peak < 3 * len(data) + 200_000


def test_each_limit_is_enforced_and_named(corpus: dict[str, bytes]) -> None:
    for limits, word in (
        (ImageLimits(encoded_bytes=100), "bytes"),
        (ImageLimits(pixels=1000), "pixels"),
        (ImageLimits(side=80), "side"),
    ):
        with pytest.raises(PayloadTooLarge, match=word):
            decode_image(corpus["jpeg"], limits=limits)
    with pytest.raises(PayloadTooLarge, match="scans"):
        decode_image(corpus["jpeg progressive"], limits=ImageLimits(scans=3))
    for kind in ("gif animated", "webp animated", "png animated"):
        with pytest.raises(PayloadTooLarge, match="frames"):
            decode_image(corpus[kind], limits=ImageLimits(frames=1))
        with pytest.raises(InvalidArgument, match="animated") as caught:
            decode_image(corpus[kind], limits=ImageLimits(animation=False))
        assert caught.value.http_status == 400


def test_limits_are_checked_where_they_are_made() -> None:
    for bad in ({"pixels": 0}, {"side": -1}, {"pixels": 100_000_000}, {"frames": 0}):
        with pytest.raises(ValueError, match="ImageLimits"):
            ImageLimits(**bad)


@pytest.mark.parametrize("kind", ["gif animated", "webp animated", "png animated"])
def test_the_first_frame_of_an_animation_is_taken(kind: str, corpus: dict[str, bytes]) -> None:
    animated, still = decode_image(corpus[kind]), decode_image(corpus[kind.removesuffix(" animated")])
    assert animated.frames == 2
    difference = np.abs(animated.pixels.astype(int) - still.pixels)
    assert difference.mean() < 3


def zip_of(text: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", text)
    return buffer.getvalue()


REFUSED = {
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "XML": b'\xef\xbb\xbf\n <?xml version="1.0"?><svg/>',
    "PDF": b"%PDF-1.7\n",
    "ICO": b"\x00\x00\x01\x00\x01\x00" + bytes(64),
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "EPS": b"\xc5\xd0\xd3\xc6" + bytes(64),
    "ZIP": zip_of(b"x"),
    "JPEG 2000": b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(64),
    "HEIF": b"\x00\x00\x00\x18ftypheic" + bytes(64),
    "AVIF": b"\x00\x00\x00\x18ftypavif" + bytes(64),
    "Photoshop": b"8BPS\x00\x01" + bytes(64),
    "this content": b"hello, this is text",
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_other_formats_are_named_and_refused(name: str) -> None:
    with pytest.raises(UndecodableMedia) as caught:
        decode_image(REFUSED[name])
    assert caught.value.http_status == 415
    assert name in caught.value.message
    assert "JPEG, PNG, WebP" in caught.value.message


def test_pillow_never_gets_a_format_that_is_not_accepted(encode: Encode, picture: Image.Image) -> None:
    for kind in (
        "PPM",
        "TGA",
        "PCX",
        "SGI",
        "IM",
        "DDS",
        "ICNS",
        "JPEG2000",
        "AVIF",
        "ICO",
        "SPIDER",
        "PDF",
        "EPS",
    ):
        image = picture.convert("F") if kind == "SPIDER" else picture
        with pytest.raises(UndecodableMedia):
            decode_image(encode(image, kind))


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "gif", "bmp"])
def test_a_picture_that_is_an_archive_too_is_refused(kind: str, corpus: dict[str, bytes]) -> None:
    with pytest.raises(UndecodableMedia, match="ZIP"):
        decode_image(corpus[kind] + zip_of(b"payload"))


def test_an_empty_file_is_a_bad_value() -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_image(b"")
    assert (caught.value.http_status, caught.value.code) == (400, "IMAGE_EMPTY")


def test_a_compressed_text_or_profile_chunk_costs_nothing() -> None:
    bomb = zlib.compress(bytes(200 << 20), 9)
    extra = [
        chunk(b"zTXt", b"note\x00\x00" + bomb),
        chunk(b"iTXt", b"note\x00\x01\x00\x00\x00" + bomb),
        chunk(b"iCCP", b"profile\x00\x00" + bomb),
    ]
    tracemalloc.start()
    try:
        assert decode_image(png(8, 8, *extra)).pixels.shape == (8, 8, 3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


def test_pixel_data_that_inflates_beyond_the_picture_costs_nothing() -> None:
    data = png(8, 8, data=zlib.compress(bytes(200 << 20), 9))
    tracemalloc.start()
    try:
        decode_image(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


def test_no_setting_of_pillow_is_changed() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert Image.MAX_IMAGE_PIXELS == 89_478_485
    assert "PIL" in sys.modules
