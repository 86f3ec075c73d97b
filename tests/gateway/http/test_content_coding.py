"""Content encodings: exactly one valid stream or nothing, and never more memory than allowed."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import brotli
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nonet.gateway.http.coding import ACCEPTED, encode, normalise, pieces, preferred
from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, UnsupportedMediaType

PLAIN = b"the same words over and over " * 40_000


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def decode(coding: str, data: bytes, limit: int) -> bytes:
    return b"".join(pieces(coding, data, limit))


ENCODERS = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}


@pytest.mark.parametrize("coding", ACCEPTED)
@given(data=st.binary(max_size=2000))
def test_what_was_encoded_comes_out(coding: str, data: bytes) -> None:
    assert decode(coding, ENCODERS[coding](data), 1 << 20) == data


@pytest.mark.parametrize("coding", ACCEPTED)
def test_large_bodies_come_out_whole(coding: str) -> None:
    noise = bytes(zlib.crc32(bytes([n & 255, n >> 8])) & 255 for n in range(60_000)) * 4
    for data in (PLAIN, noise):
        assert decode(coding, ENCODERS[coding](data), len(data)) == data


def test_deflate_without_its_zlib_header_is_understood() -> None:
    assert decode("deflate", raw_deflate(PLAIN), len(PLAIN)) == PLAIN


def test_gzip_members_in_a_row_are_one_body() -> None:
    assert (
        decode("gzip", gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two"), 100) == b"one two"
    )


def test_gzip_members_without_end_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        decode("gzip", gzip.compress(b"") * 10_000, 100)


@pytest.mark.parametrize("coding", ACCEPTED)
@pytest.mark.parametrize("damage", ["garbage", "cut", "tail", "empty"])
def test_anything_but_one_whole_stream_is_refused(coding: str, damage: str) -> None:
    whole = ENCODERS[coding](PLAIN)
    data = {"garbage": b"\x17 not a stream", "cut": whole[:-5], "tail": whole + b"tail", "empty": b""}[damage]
    with pytest.raises(InvalidArgument) as refusal:
        decode(coding, data, len(PLAIN))
    assert refusal.value.param == "Content-Encoding"


@pytest.mark.parametrize("coding", ACCEPTED)
@given(data=st.binary(max_size=300))
def test_garbage_never_does_anything_else(coding: str, data: bytes) -> None:
    try:
        decode(coding, data, 10_000)
    except (InvalidArgument, PayloadTooLarge):
        return


@pytest.mark.parametrize("coding", ACCEPTED)
def test_a_bomb_is_stopped_at_the_limit(coding: str) -> None:
    zeros = bytes(64 << 20)
    bomb = brotli.compress(zeros, quality=1) if coding == "br" else ENCODERS[coding](zeros)
    limit = 4 << 20
    tracemalloc.start()
    with pytest.raises(PayloadTooLarge):
        decode(coding, bomb, limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * limit


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_we_encode_others_decode(coding: str) -> None:
    decoders = {"gzip": gzip.decompress, "deflate": zlib.decompress}
    assert decoders[coding](encode(coding, PLAIN)) == PLAIN


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("identity", ""),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        (" br ", "br"),
        ("deflate", "deflate"),
    ],
)
def test_known_codings(header: str, coding: str) -> None:
    assert normalise(header) == coding


@pytest.mark.parametrize("header", ["zstd", "gzip, br", "gzip\x00", "compress", ","])
def test_unknown_codings_are_refused(header: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="gzip, deflate, br"):
        normalise(header)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br", ""),
        ("gzip;q=0", ""),
        ("gzip;q=0.2, deflate;q=0.7", "deflate"),
        ("gzip;q=nonsense", ""),
        ("*", ""),
        ("GZip , deflate", "gzip"),
    ],
)
def test_the_preferred_coding(header: str, coding: str) -> None:
    assert preferred(header) == coding
