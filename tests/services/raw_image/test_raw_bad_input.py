"""Captures that are broken, bombs, of the wrong form or of sensors without a Bayer pattern."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from nonet.runtime.errors import ServingError
from tests.support import handmade_captures


def refused(lab, file: bytes, status: int, *words: str, **parameters) -> ServingError:
    """The refusal of a capture, which has this status and says all the words."""
    with pytest.raises(ServingError) as caught:
        lab.run(file, **{"cfa": "RGGB", **parameters})
    error = caught.value
    assert error.http_status == status, (error.code, error.message)
    for word in words:
        assert word.lower() in error.message.lower(), error.message
    return error


def png(width: int, height: int, depth: int = 16, colour: int = 0, data: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = zlib.compress(data)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def npy_header(description: str, body: bytes = b"") -> bytes:
    text = description.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("../capture.dng", b"hello")
    return buffer.getvalue()


MOSAIC = handmade_captures.capture()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "NPY", "DNG"])
def test_a_truncated_capture_is_400_and_never_filled_in(lab, kind, share) -> None:
    noisy = np.random.default_rng(2).integers(600, 16000, (44, 60)).astype(np.uint16)
    whole = {
        "PNG": lambda: handmade_captures.image_file(noisy),
        "TIFF": lambda: handmade_captures.image_file(noisy, "TIFF"),
        "NPY": lambda: handmade_captures.npy(noisy),
        "DNG": lambda: handmade_captures.dng(noisy),
    }[kind]()
    refused(lab, whole[: int(len(whole) * share)], 400)


@pytest.mark.parametrize(
    "file",
    [
        png(20_000, 10_000),
        png(2**31 - 1, 2**31 - 1),
        npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (10000, 20000)}"),
        npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (4611686018427387904, 4)}"),
        handmade_captures.dng(MOSAIC, tags={256: (4, [20_000]), 257: (4, [10_000])}),
        handmade_captures.image_file(MOSAIC, "TIFF").replace(
            struct.pack("<HHII", 256, 4, 1, 60), struct.pack("<HHII", 256, 4, 1, 9_000_000)
        ),
    ],
    ids=["png", "png largest", "npy", "npy overflow", "dng", "tiff"],
)
def test_two_hundred_megapixels_in_a_header_are_413_before_any_decoding(lab, file) -> None:
    assert refused(lab, file, 413, "limit").code in ("RAW_TOO_LARGE", "IMAGE_TOO_LARGE")


def test_bare_samples_of_two_hundred_megapixels_are_413(lab) -> None:
    refused(lab, b"12", 413, width=20_000, height=10_000)


@pytest.mark.parametrize(
    "file",
    [
        png(0, 10),
        npy_header("{'descr': '<u2', 'fortran_order': False, 'shape': (0, 0)}"),
        handmade_captures.npy(MOSAIC[:1]),
    ],
)
def test_a_capture_without_pixels_is_400(lab, file) -> None:
    refused(lab, file, 400)


def test_bare_samples_of_the_wrong_length_are_400_with_the_expected_bytes(lab) -> None:
    refused(lab, bytes(5279), 400, "5280", "5279", width=60, height=44)
    refused(lab, bytes(5281), 400, "5280", "5281", width=60, height=44)
    refused(lab, bytes(5280), 400, "height", width=60)
    refused(lab, b"", 400, "empty", width=60, height=44)


@pytest.mark.parametrize("body", [bytes(100), bytes(44 * 60 * 2 + 2)])
def test_an_npy_of_the_wrong_length_is_400_with_the_expected_bytes(lab, body) -> None:
    header = "{'descr': '<u2', 'fortran_order': False, 'shape': (44, 60)}"
    refused(lab, npy_header(header, body), 400, "5280", str(len(body)))


@pytest.mark.parametrize("shape", [(43, 60), (44, 59), (43, 59)])
def test_an_odd_size_is_400_with_the_expected_bytes(lab, shape) -> None:
    odd = np.zeros(shape, np.uint16)
    for file in (handmade_captures.npy(odd), handmade_captures.image_file(odd)):
        assert refused(lab, file, 400, "even", "5280").code == "RAW_ODD_SIZE"


def test_a_wrong_bit_depth_is_400_with_the_expected_bytes(lab) -> None:
    eight = np.zeros((44, 60), np.uint8)
    for file in (handmade_captures.image_file(eight), handmade_captures.image_file(eight, "TIFF")):
        assert refused(lab, file, 400, "5280", "2640").code == "RAW_BIT_DEPTH"
    refused(lab, handmade_captures.npy(eight), 400, "uint16")
    refused(lab, handmade_captures.npy(np.zeros((44, 60), np.int64)), 400, "uint16")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "NPY"])
def test_a_colour_picture_is_no_mosaic(lab, kind) -> None:
    colour = np.zeros((44, 60, 3), np.uint8)
    file = (
        handmade_captures.npy(colour.astype(np.uint16))
        if kind == "NPY"
        else handmade_captures.image_file(colour, kind)
    )
    with pytest.raises(ServingError) as caught:
        lab.run(file, cfa="RGGB")
    assert caught.value.http_status in (400, 415)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_mosaic_that_is_not_finite_is_400(lab, value) -> None:
    mosaic = MOSAIC / 65535
    mosaic[3, 5] = value
    assert refused(lab, handmade_captures.npy(mosaic), 400, "finite").code == "RAW_NOT_FINITE"


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 2)}",
        "{'descr': [('a', '<u2')], 'fortran_order': False, 'shape': (2, 2)}",
        "{'descr': ('<u2', (2,)), 'fortran_order': False, 'shape': (2, 2)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (2, 2)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-2, -2)}",
        "{'descr': '<u2', 'fortran_order': 7, 'shape': (2, 2)}",
        "{'descr': '<u2'}",
        "__import__('os').system('true')",
        "[" * 2000,
        "(" * 500 + ")" * 500,
    ],
)
def test_a_hostile_npy_header_is_400(lab, header) -> None:
    refused(lab, npy_header(header, bytes(64)), 400)


def test_objects_in_an_npy_are_never_unpickled(lab, tmp_path: Path) -> None:
    mark = tmp_path / "unpickled"

    class Bomb:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(mark),)

    buffer = io.BytesIO()
    np.save(buffer, np.array([[Bomb(), Bomb()], [Bomb(), Bomb()]], dtype=object), allow_pickle=True)
    refused(lab, buffer.getvalue(), 400)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("black", "white"), [(1000, 1000), (2000, 1000), ("0,0,70000,0", 65535), (0, 0), (0, -5)]
)
def test_black_at_or_above_white_is_400(lab, black, white) -> None:
    error = refused(lab, handmade_captures.npy(MOSAIC), 400, "above", black_level=black, white_level=white)
    assert error.param == "white_level"
    refused(lab, handmade_captures.dng(MOSAIC // 8), 400, "above", black_level=black, white_level=white)


def test_a_mosaic_without_its_phase_is_400_and_the_phases_are_named(lab) -> None:
    with pytest.raises(ServingError, match=r"cfa.*RGGB, GRBG, GBRG or BGGR"):
        lab.run(handmade_captures.npy(MOSAIC))


NOT_RAW = {
    "zip": archive(),
    "png and zip": handmade_captures.image_file(MOSAIC) + archive(),
    "dng and zip": handmade_captures.dng(MOSAIC // 8) + archive(),
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(200),
    "gzip": b"\x1f\x8b" + bytes(200),
    "svg": b"<svg/>",
    "pickle": b"\x80\x04\x95\x10",
    "x3f": b"FOVb" + bytes(400),
    "text": b"this is no capture",
    "zeros": bytes(4096),
}


@pytest.mark.parametrize("kind", NOT_RAW)
def test_what_is_no_capture_is_415_and_says_what_is_accepted(lab, kind) -> None:
    refused(lab, NOT_RAW[kind], 415, "accepted are", "DNG")


@pytest.mark.parametrize(
    "tags",
    [
        {262: (3, [34892]), 33421: None, 33422: None},  # LinearRaw of one channel: monochrome
        {33421: (3, [6, 6]), 33422: (1, [1, 1, 0, 1, 1, 2] * 6)},
        {33422: (1, [0, 1, 1, 0])},
        {33422: (1, [0, 1, 0, 1])},
    ],
    ids=["monochrome", "x-trans", "two reds", "columns"],
)
def test_a_sensor_without_a_bayer_pattern_is_415(lab, tags) -> None:
    pytest.importorskip("rawpy")
    refused(lab, handmade_captures.dng(MOSAIC // 8, tags=tags), 415, "sensor", "Bayer")


@pytest.mark.parametrize("seed", range(12))
def test_damaged_camera_files_never_do_more_than_fail(lab, seed) -> None:
    """Bytes of the header are overwritten at random: an answer or a refusal of the caller's file, no more."""
    pytest.importorskip("rawpy")
    random = np.random.default_rng(seed)
    file = bytearray(handmade_captures.dng(MOSAIC // 8))
    for place in random.integers(4, 500, 6):
        file[place] = random.integers(0, 256)
    try:
        lab.run(bytes(file))
    except ServingError as error:
        assert error.http_status in (400, 413, 415), (error.code, error.message)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cfa", "RGBG"),
        ("cfa", 5),
        ("output", "gif"),
        ("render", "nice"),
        ("noise", -1),
        ("noise", "nan"),
        ("noise", "1e999"),
        ("noise", 256),
        ("noise", True),
        ("white_balance", "1,2"),
        ("white_balance", "1,0,2"),
        ("white_balance", "sunny"),
        ("black_level", "1,2,3"),
        ("black_level", "x"),
        ("white_level", "1e30"),
        ("white_level", 70000),
        ("uncertainty", "maybe"),
        ("camera_matrix", "1,0,0,0,1,0,0,0,0"),
        ("camera_matrix", "1"),
        ("width", -2),
        ("height", 1.5),
        ("colour", "red"),
    ],
)
def test_a_parameter_out_of_range_is_400_and_named(lab, name, value) -> None:
    given = {
        "cfa": "RGGB",
        **({"height": 44} if name == "width" else {}),
        **({"width": 60} if name == "height" else {}),
    }
    error = refused(lab, handmade_captures.npy(MOSAIC), 400, name, **(given | {name: value}))
    assert error.param == name


def test_white_balance_needs_a_picture_and_camera_needs_a_camera(lab) -> None:
    refused(lab, handmade_captures.npy(MOSAIC), 400, "render", white_balance="auto")
    refused(lab, handmade_captures.npy(MOSAIC), 400, "camera", white_balance="camera", render="srgb")
