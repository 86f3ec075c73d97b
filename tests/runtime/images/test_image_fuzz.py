"""Whatever the bytes, decoding ends in pixels within the limits or in an error of the contract."""

from __future__ import annotations

import resource

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nonet.runtime.errors import ServingError
from nonet.runtime.images import ImageLimits, decode_image

LIMITS = ImageLimits(pixels=200_000, side=2_000, frames=20)
CODES = {
    *("IMAGE_TRUNCATED", "IMAGE_CORRUPT", "IMAGE_TOO_LARGE", "IMAGE_UNSUPPORTED", "IMAGE_EMPTY"),
    "IMAGE_ANIMATED",
}
VALUES = st.sampled_from(
    [b"", b"\x00", b"\xff", b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xd9", b"\x80"]
)
EDIT = st.tuples(
    st.floats(0, 1), st.integers(0, 12), st.one_of(VALUES, st.binary(max_size=12))
)  # where, how much is removed, what comes in its place


@pytest.fixture(scope="module", autouse=True)
def peak_before() -> int:
    """Largest memory of the process so far, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def check(data: bytes, target: tuple[int, int] | None) -> None:
    try:
        image = decode_image(data, limits=LIMITS, target=target)
    except ServingError as error:
        assert error.code in CODES
        assert error.http_status in (400, 413, 415)
        assert error.param == "image"
        assert "\n" not in error.message
        assert "Traceback" not in error.message
    else:
        assert image.pixels.dtype == "uint8"
        assert image.pixels.shape[2] == 3
        assert image.width * image.height <= LIMITS.pixels


@pytest.mark.filterwarnings("ignore")
@given(data=st.data())
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutated_files_raise_nothing_but_the_contract(corpus: dict[str, bytes], data: st.DataObject) -> None:
    raw = bytearray(corpus[data.draw(st.sampled_from(sorted(corpus)))])
    header_only = data.draw(st.booleans())
    for where, removed, added in data.draw(st.lists(EDIT, min_size=1, max_size=6)):
        position = int(where * (min(len(raw), 120) if header_only else len(raw)))
        raw[position : position + removed] = added
    check(bytes(raw), data.draw(st.sampled_from([None, (8, 8)])))


@pytest.mark.filterwarnings("ignore")
@given(
    magic=st.sampled_from(
        [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II\x2a\x00", b"MM\x00\x2a", b""]
    ),
    tail=st.binary(max_size=300),
)
@settings(max_examples=400, deadline=None)
def test_random_bytes_behind_a_magic_number_raise_nothing_but_the_contract(magic: bytes, tail: bytes) -> None:
    check(magic + tail, None)


@pytest.mark.filterwarnings("ignore")
@given(size=st.integers(0, 2**32 - 1), tail=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_riff_files_raise_nothing_but_the_contract(size: int, tail: bytes) -> None:
    for length in (size, 4 + len(tail)):
        check(b"RIFF" + length.to_bytes(4, "little") + b"WEBP" + tail, None)


def test_the_fuzzing_above_needed_little_memory(peak_before: int) -> None:
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before
    assert grown_kib < 300 << 10
