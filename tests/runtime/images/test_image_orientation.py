"""EXIF orientation 1 to 8 gives the pixels of the picture turned beforehand (fault 42)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from nonet.runtime.images import Preprocessing, decode_image, preprocess

Encode = Callable[..., bytes]

# What a viewer does to the stored pixels (rows, columns, channels), by orientation.
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored.transpose(1, 0, 2)[:, ::-1],
    7: lambda stored: stored.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}
LOSSLESS = {"PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_lossless_files_come_upright(
    kind: str, orientation: int, encode: Encode, exif: Callable[[int], bytes], picture: Image.Image
) -> None:
    decoded = decode_image(encode(picture, kind, exif=exif(orientation), **LOSSLESS[kind]))
    expected = UPRIGHT[orientation](np.asarray(picture))
    np.testing.assert_array_equal(decoded.pixels, expected)
    assert (decoded.height, decoded.width) == expected.shape[:2]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_comes_upright_at_full_and_at_reduced_size(
    orientation: int, progressive: bool, encode: Encode, exif: Callable[[int], bytes], picture: Image.Image
) -> None:
    large = picture.resize((360, 280))
    plain = encode(large, "JPEG", progressive=progressive)
    tagged = encode(large, "JPEG", progressive=progressive, exif=exif(orientation))
    turn = UPRIGHT[orientation]
    np.testing.assert_array_equal(decode_image(tagged).pixels, turn(decode_image(plain).pixels))

    swapped = orientation >= 5
    target = (35, 45) if swapped else (45, 35)
    reduced = decode_image(tagged, target=target)
    assert reduced.pixels.shape[:2] == ((90, 70) if swapped else (70, 90))
    assert (reduced.width, reduced.height) == ((280, 360) if swapped else (360, 280))
    np.testing.assert_array_equal(reduced.pixels, turn(decode_image(plain, target=(45, 35)).pixels))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_tensor_equals_that_of_the_picture_turned_beforehand(
    orientation: int, encode: Encode, exif: Callable[[int], bytes], picture: Image.Image
) -> None:
    spec = Preprocessing(40, 32)
    turned = Image.fromarray(np.ascontiguousarray(UPRIGHT[orientation](np.asarray(picture))))
    tensor = preprocess(decode_image(encode(picture, "PNG", exif=exif(orientation))), spec)
    np.testing.assert_array_equal(tensor, preprocess(decode_image(encode(turned, "PNG")), spec))


def tiff_block(order: str, value: int, kind: int = 3, count: int = 1, offset: int = 8) -> bytes:
    mark = b"II\x2a\x00" if order == "<" else b"MM\x00\x2a"
    entry = struct.pack(order + "HHI", 0x0112, kind, count) + struct.pack(order + "HH", value, 0)
    return mark + struct.pack(order + "I", offset) + struct.pack(order + "H", 1) + entry + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order: str, encode: Encode, picture: Image.Image) -> None:
    data = encode(picture, "JPEG", exif=b"Exif\x00\x00" + tiff_block(order, 6))
    assert decode_image(data).pixels.shape == (90, 70, 3)


@pytest.mark.parametrize(
    "block",
    [
        tiff_block("<", 0),
        tiff_block("<", 9),
        tiff_block("<", 6, kind=12),
        tiff_block("<", 6, count=1 << 30),
        tiff_block("<", 6, offset=1 << 30),
        tiff_block("<", 6)[:14],
        b"II\x2a\x00",
        b"",
        b"nonsense",
    ],
)
def test_an_orientation_that_makes_no_sense_is_ignored(
    block: bytes, encode: Encode, picture: Image.Image
) -> None:
    data = encode(picture, "JPEG", exif=b"Exif\x00\x00" + block)
    assert decode_image(data).pixels.shape == (70, 90, 3)
