"""A file that was cut off or lost data is the caller's error, never a picture with a grey part (fault 40)."""

from __future__ import annotations

import collections
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.images import decode_image

KINDS = [
    *("jpeg", "jpeg progressive", "jpeg metadata", "jpeg restarts", "jpeg grey", "jpeg cmyk"),
    *("png", "png palette", "png rgba", "png 1 bit", "png 16 bit", "png animated"),
    *("webp", "webp lossless", "webp animated", "gif", "gif animated"),
    *("bmp", "bmp palette", "tiff", "tiff lzw", "tiff deflate"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_a_file_cut_at_any_byte_is_refused(kind: str, corpus: dict[str, bytes]) -> None:
    data = corpus[kind]
    whole = decode_image(data).pixels
    codes: collections.Counter[str] = collections.Counter()
    step = max(1, len(data) // 3000)
    cuts = sorted({*range(0, len(data), step), *range(max(0, len(data) - 200), len(data))})
    for cut in cuts:
        try:
            part = decode_image(data[:cut])
        except ServingError as error:
            codes[error.code] += 1
            assert error.http_status in (400, 415)
        else:
            nothing_lost = kind.startswith("tiff") or (kind.startswith("gif") and ends_a_block(data, cut))
            assert nothing_lost, f"{cut} of {len(data)} bytes were accepted"
            np.testing.assert_array_equal(part.pixels, whole)
    assert codes["IMAGE_TRUNCATED"] >= 0.9 * len(cuts) - 12
    assert codes["IMAGE_UNSUPPORTED"] <= 12  # only where not even the magic number is whole


def ends_a_block(data: bytes, cut: int) -> bool:
    """Whether a GIF cut there lacks its trailer, or whole blocks behind its first frame, and no more."""
    return data[cut - 1] == 0 and data[cut] in (0x21, 0x2C, 0x3B)


def test_a_real_photograph_cut_anywhere_is_refused(shared_data: Path) -> None:
    path = sorted((shared_data / "rec_photos" / "images").glob("*.jpg"))[0]
    data = path.read_bytes()
    decode_image(data)
    for cut in range(3, len(data), 1009):
        with pytest.raises(InvalidArgument) as caught:
            decode_image(data[:cut])
        assert caught.value.code == "IMAGE_TRUNCATED"


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("target", [None, (10, 10)])
def test_a_short_scan_that_was_closed_with_an_end_marker_is_refused(
    share: float, target: tuple[int, int] | None, corpus: dict[str, bytes]
) -> None:
    data = corpus["jpeg"]
    scan = data.rindex(b"\xff\xda") + 20
    cut = scan + int((len(data) - scan) * share)
    assert data[cut - 1] != 0xFF
    with pytest.raises(InvalidArgument) as caught:
        decode_image(data[:cut] + b"\xff\xd9", target=target)
    assert caught.value.code == "IMAGE_TRUNCATED"


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_picture_that_is_mid_grey_is_not_mistaken_for_a_short_scan(
    mode: str, encode: Callable[..., bytes]
) -> None:
    grey = Image.new("RGB", (40, 24), (128, 128, 128)).convert(mode)
    pixels = decode_image(encode(grey, "JPEG")).pixels
    assert pixels.shape == (24, 40, 3)
    assert np.abs(pixels.astype(int) - 128).max() <= 2


def scans(data: bytes) -> list[tuple[int, int, bytes]]:
    """Start of the tables or header of each scan of a JPEG, its end, and the body of its header."""
    found, position, start = [], 2, None
    while data[position + 1] != 0xD9:
        kind, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        end = position + 2 + length
        if kind in (0xC4, 0xDA) and start is None:
            start = position
        if kind == 0xDA:
            body = data[position + 4 : end]
            while data[end] != 0xFF or data[end + 1] in (0, *range(0xD0, 0xD8)):
                end += 1
            found.append((start, end, body))
            start = None
        position = end
    return found


@pytest.mark.parametrize("kept", ["first", "no last", "no detail of colours"])
def test_a_progressive_file_may_leave_out_refinements(kept: str, corpus: dict[str, bytes]) -> None:
    data = corpus["jpeg progressive"]
    parts = scans(data)
    head, whole = data[: parts[0][0]], np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    wanted = {
        "first": parts[:1],
        "no last": parts[:-1],
        "no detail of colours": [part for part in parts if part[2][0] > 1 or part[2][1] == 1],
    }[kept]
    file = head + b"".join(data[start:end] for start, end, _ in wanted) + b"\xff\xd9"
    assert len(file) < len(data)
    pixels = decode_image(file).pixels
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(file)).convert("RGB")))
    assert np.abs(pixels.astype(int) - whole).mean() < 40


def test_a_progressive_file_that_never_codes_a_component_is_refused(corpus: dict[str, bytes]) -> None:
    """Detail of the brightness alone: what would be shown of the means is made up."""
    data = corpus["jpeg progressive"]
    parts = scans(data)
    detail = [part for part in parts if part[2][-3] > 0]
    file = data[: parts[0][0]] + b"".join(data[start:end] for start, end, _ in detail) + b"\xff\xd9"
    with pytest.raises(InvalidArgument) as caught:
        decode_image(file)
    assert caught.value.code == "IMAGE_TRUNCATED"


def test_missing_restart_markers_are_noticed(corpus: dict[str, bytes]) -> None:
    data = corpus["jpeg restarts"]
    first, second = data.rindex(b"\xff\xd0"), data.rindex(b"\xff\xd1")
    assert first < second
    with pytest.raises(InvalidArgument) as caught:
        decode_image(data[:first] + data[second + 2 :])
    assert caught.value.code == "IMAGE_TRUNCATED"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


@pytest.mark.parametrize("rows", range(11))
@pytest.mark.parametrize("value", [0, 200])
def test_a_well_formed_png_with_too_few_rows_is_refused(rows: int, value: int) -> None:
    row = b"\x00" + bytes([value]) * 24
    data = png(header(8, 10), chunk(b"IDAT", zlib.compress(row * rows)), chunk(b"IEND", b""))
    if rows == 10:
        assert (decode_image(data).pixels == value).all()
        return
    with pytest.raises(InvalidArgument):
        decode_image(data)


def test_a_well_formed_interlaced_png_with_too_few_rows_is_refused() -> None:
    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 11, 8, 0, 0, 0, 1))
    passes = [(2, 2), (1, 2), (3, 1), (2, 3), (5, 3), (4, 6), (9, 5)]
    rows = b"".join((b"\x00" + b"\x37" * columns) * count for columns, count in passes)
    whole = png(ihdr, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    assert (decode_image(whole).pixels == 0x37).all()
    for missing in (1, 10, 40, len(rows)):
        data = png(ihdr, chunk(b"IDAT", zlib.compress(rows[:-missing])), chunk(b"IEND", b""))
        with pytest.raises(InvalidArgument):
            decode_image(data)


def test_a_gif_may_lack_its_trailer_and_hold_empty_blocks(corpus: dict[str, bytes]) -> None:
    data = corpus["gif"]
    assert data[-1] == 0x3B
    whole = decode_image(data).pixels
    for file in (data[:-1], data[:-1] + b"\0", data[:-1] + b"\0\0\x3b"):
        np.testing.assert_array_equal(decode_image(file).pixels, whole)


def test_a_gif_frame_that_reaches_beyond_the_screen_makes_it_larger(corpus: dict[str, bytes]) -> None:
    data = bytearray(corpus["gif"])
    whole = decode_image(bytes(data)).pixels
    struct.pack_into("<HH", data, 6, 40, 30)
    np.testing.assert_array_equal(decode_image(bytes(data)).pixels, whole)


def test_a_gif_whose_codes_end_early_is_refused(corpus: dict[str, bytes]) -> None:
    data = corpus["gif"]
    first = data.index(b"\x2c\x00\x00\x00\x00") + 10
    block = first + 1
    assert data[block] == 255
    with pytest.raises(InvalidArgument) as caught:
        decode_image(data[: block + 256] + b"\x00\x3b")
    assert caught.value.code == "IMAGE_TRUNCATED"


@pytest.mark.parametrize("kind", ["tiff lzw", "tiff deflate"])
def test_a_tiff_whose_strip_ends_early_is_refused(kind: str, corpus: dict[str, bytes]) -> None:
    data = bytearray(corpus[kind])
    (directory,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, directory)[0]):
        position = directory + 2 + 12 * entry
        tag, _, count, length = struct.unpack_from("<HHII", data, position)
        if tag == 279:
            assert count == 1
            struct.pack_into("<I", data, position + 8, length // 2)
    with pytest.raises(InvalidArgument):
        decode_image(bytes(data))


def test_a_png_with_a_wrong_checksum_is_damaged(corpus: dict[str, bytes]) -> None:
    data = bytearray(corpus["png"])
    data[len(data) // 2] ^= 1
    with pytest.raises(InvalidArgument) as caught:
        decode_image(bytes(data))
    assert caught.value.code == "IMAGE_CORRUPT"


def test_bytes_behind_a_whole_picture_do_no_harm(corpus: dict[str, bytes]) -> None:
    for kind in ("jpeg", "png", "webp", "gif"):
        plain = decode_image(corpus[kind]).pixels
        np.testing.assert_array_equal(decode_image(corpus[kind] + b"\x00more" * 50).pixels, plain)
