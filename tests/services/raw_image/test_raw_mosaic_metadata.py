"""A mosaic is a mosaic whatever its file says beside the samples, and refusals speak of a raw capture."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from nonet.runtime.errors import ServingError
from tests.support import handmade_captures, handmade_tiffs
from tests.support.handmade_tiffs import Storage

MOSAIC = handmade_captures.capture(40, 52, "GRBG")
PLAIN = Storage()
CAMERA = {
    271: (2, list(b"Canon\0")),
    272: (2, list(b"Canon EOS 5D Mark II\0")),
    306: (2, list(b"2020:01:02 03:04:05\0")),
}


def tiff(mosaic: np.ndarray = MOSAIC, bits: int = 16, storage: Storage = PLAIN, **more) -> bytes:
    return handmade_tiffs.page(
        mosaic[:, :, None], bits, more.pop("photometric", 1), storage, more.get("tags")
    )


def turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    meant = Image.fromarray(picture)
    meant.getexif()[274] = orientation
    return np.asarray(ImageOps.exif_transpose(meant))


@pytest.mark.parametrize("render", ["none", "srgb"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_turns_the_picture_and_not_the_mosaic(lab, orientation: int, render: str) -> None:
    plain = lab.picture(tiff(), cfa="GRBG", render=render)
    got = lab.picture(tiff(tags={274: (3, [orientation])}), cfa="GRBG", render=render)
    assert np.array_equal(got, turned(plain, orientation))
    facts = lab.details(tiff(tags={274: (3, [orientation])}), cfa="GRBG", render=render)
    assert (facts["height"], facts["width"]) == got.shape[:2]


def test_an_orientation_in_a_png_turns_the_picture_too(lab) -> None:
    block = Image.Exif()
    block[274] = 6
    plain = lab.picture(handmade_captures.image_file(MOSAIC), cfa="GRBG")
    got = lab.picture(handmade_captures.image_file(MOSAIC, exif=block), cfa="GRBG")
    assert np.array_equal(got, turned(plain, 6))


METADATA = {
    "camera": CAMERA,
    "white is zero": {262: (3, [0])},
    "exif directory": {34665: (4, [8])},
    "pattern": {33421: (3, [2, 2]), 33422: (1, [1, 0, 2, 1])},
    "a wrong pattern": {33421: (3, [2, 2]), 33422: (1, [2, 1, 1, 0])},
    "directories that are not there": {330: (4, [1 << 30, 1 << 29])},
    "profile": {34675: (1, [7] * 500)},
}


@pytest.mark.parametrize("name", METADATA)
def test_what_else_a_file_says_makes_no_difference(lab, name: str) -> None:
    """dcraw's document mode, converters and scanners write such files."""
    got = lab.picture(tiff(tags=METADATA[name]), cfa="GRBG", output="tiff16", noise=0)
    assert np.array_equal(got, lab.picture(tiff(), cfa="GRBG", output="tiff16", noise=0))


def test_the_phase_that_a_file_says_is_taken_where_the_caller_says_none(lab) -> None:
    assert lab.details(tiff(tags=METADATA["pattern"]))["cfa"] == "GRBG"
    with pytest.raises(ServingError, match="cfa is missing"):
        lab.run(tiff(tags={33421: (3, [6, 6]), 33422: (1, [1] * 36)}))


STORAGES = [
    Storage(order=">"),
    Storage(compression=5, rows=9),
    Storage(compression=8, predictor=2, rows=6),
    Storage(compression=32773),
    Storage(tile=(32, 16)),
    Storage(reversed_bits=True),
]


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_holds_the_same_samples(lab, storage: Storage) -> None:
    got = lab.picture(tiff(storage=storage), cfa="GRBG", output="tiff16", noise=0)
    assert np.array_equal(got, lab.picture(tiff(), cfa="GRBG", output="tiff16", noise=0))


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_samples_are_unpacked_and_end_at_their_own_white(lab, bits: int) -> None:
    mosaic = MOSAIC >> (16 - bits)
    file = tiff(mosaic, bits)
    assert lab.details(file, cfa="GRBG")["white_level"] == (1 << bits) - 1
    assert back(lab, file, mosaic) == 0


def back(lab, file: bytes, mosaic: np.ndarray, **how) -> int:
    """How far the samples of a GRBG mosaic come back at most."""
    picture = lab.picture(file, cfa="GRBG", output="tiff16", noise=0, **how).astype(int)
    planes = [("G", 0, 0), ("R", 0, 1), ("B", 1, 0), ("G", 1, 1)]
    return max(
        np.abs(picture[row::2, column::2, "RGB".index(colour)] - mosaic[row::2, column::2]).max()
        for colour, row, column in planes
    )


@pytest.mark.parametrize("kind", ["tiff", "npy", "npy 3.0", "npy big-endian"])
def test_signed_and_other_versions_hold_the_same_samples(lab, kind: str) -> None:
    small = (MOSAIC >> 2).astype(np.int16)
    if kind == "tiff":
        file = tiff(small)
    else:
        buffer, version = io.BytesIO(), (3, 0) if kind == "npy 3.0" else (1, 0)
        values = small.astype(">i2") if kind == "npy big-endian" else small
        np.lib.format.write_array(buffer, values, version, allow_pickle=False)
        file = buffer.getvalue()
    assert lab.details(file, cfa="GRBG")["white_level"] == 32767
    assert back(lab, file, small) == 0


@pytest.mark.parametrize("float_bits", [16, 32, 64])
def test_floating_point_samples_end_at_one(lab, float_bits: int) -> None:
    values = (MOSAIC / 65535).astype(f"f{float_bits // 8}")
    got = lab.picture(tiff(values, float_bits), cfa="GRBG")
    assert np.abs(got.astype(int) - lab.picture(tiff(), cfa="GRBG")).max() <= 1
    assert lab.details(tiff(values, float_bits), cfa="GRBG")["white_level"] == 1


@pytest.mark.parametrize("levels", ["512,520,500,490", "0,64,128,32", "512"])
@pytest.mark.parametrize("how", [{"noise": 0}, {"strength": 0}])
def test_every_sample_comes_back_under_any_levels(lab, levels: str, how: dict) -> None:
    random = np.random.default_rng(0)
    mosaic = random.integers(300, 16000, MOSAIC.shape).astype(np.uint16)
    mosaic[5, 7], mosaic[10, 8] = 16383, 0  # what would be taken for defects
    options = {
        "cfa": "GRBG",
        "output": "tiff16",
        "black_level": levels,
        "white_level": "16383,16000,15000,16383",
    }
    picture = lab.picture(tiff(mosaic), **options, **how).astype(int)
    for colour, row, column in (("G", 0, 0), ("R", 0, 1), ("B", 1, 0), ("G", 1, 1)):
        assert np.array_equal(picture[row::2, column::2, "RGB".index(colour)], mosaic[row::2, column::2])


REFUSED = {
    "zstd": (handmade_tiffs.page(MOSAIC[:, :, None], 16, 1, tags={259: (3, [50000])}), 415, "Zstandard"),
    "32 bits": (tiff(MOSAIC.astype(np.uint32), 32), 400, "32 bits"),
    "8 bits": (tiff((MOSAIC >> 8).astype(np.uint8), 8), 400, "8 bits"),
    "channels": (handmade_tiffs.page(np.zeros((40, 52, 2), np.uint16), 16, 1), 400, "several channels"),
    "cut": (tiff()[:-100], 400, "cut off"),
    "png": (handmade_captures.image_file(MOSAIC)[:-20], 400, "cut off"),
    "huge": (tiff(tags={256: (4, [60_000]), 257: (4, [60_000])}), 413, "limit"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_the_field_and_never_picture_formats(lab, name: str) -> None:
    file, status, words = REFUSED[name]
    with pytest.raises(ServingError) as caught:
        lab.run(file, cfa="GRBG")
    error = caught.value
    assert (error.http_status, error.param) == (status, "raw")
    assert error.code.startswith("RAW_")
    assert error.message.startswith("raw: ")
    assert words in error.message
    assert not any(word in error.message for word in ("JPEG", "WebP", "GIF", "image:"))


def test_a_preview_in_front_of_a_sensors_mosaic_makes_a_camera_file(lab) -> None:
    """A grey preview whose sub-directory holds the mosaic is no mosaic: LibRaw decides."""
    sub = struct.pack("<H", 1) + struct.pack("<HHII", 262, 3, 1, 32803) + bytes(4)
    file = tiff(tags={330: (4, [0])})
    at = len(file)
    entry = file.index(struct.pack("<HHI", 330, 4, 1))
    file = file[: entry + 8] + struct.pack("<I", at) + file[entry + 12 :] + sub
    with pytest.raises(ServingError) as caught:
        lab.run(file, cfa="GRBG")
    assert "camera file" in caught.value.message


@pytest.mark.parametrize("tags", [{}, CAMERA])
@pytest.mark.parametrize(
    ("count", "bits", "photometric"), [(3, 16, 2), (3, 8, 2), (4, 16, 2), (4, 8, 5), (3, 8, 6)]
)
def test_a_picture_is_no_capture_though_a_camera_took_it(
    lab, tags: dict, count: int, bits: int, photometric: int
) -> None:
    values = np.random.default_rng(0).integers(0, 1 << bits, (40, 52, count)).astype(f"u{bits // 8}")
    file = handmade_tiffs.page(values, bits, photometric, tags=tags)
    for phase in ({}, {"cfa": "GRBG"}):
        with pytest.raises(ServingError, match="developed") as caught:
            lab.run(file, **phase)
        assert (caught.value.http_status, caught.value.param) == (415, "raw")
