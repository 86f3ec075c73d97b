"""Content encodings: undo gzip, deflate and br within a bound, apply gzip and deflate.

Decoding works in small steps and stops as soon as the result passes its limit, so a bomb costs at most the
limit in memory. Everything that is not exactly one whole stream is refused: garbage, a stream that ends
early, bytes after the end.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import brotli

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, UnsupportedMediaType

ACCEPTED = ("gzip", "deflate", "br")

_STEP_IN = 64 * 1024
_STEP_OUT = 256 * 1024
# A gzip body may be several members in a row; each costs a fresh decompressor, so their number is bounded.
_MAX_MEMBERS = 256


def normalise(content_encoding: str) -> str:
    """The one coding of a ``Content-Encoding`` header; "" for none.

    Raises UnsupportedMediaType for a coding we do not speak, or for more than one.
    """
    name = content_encoding.strip().lower()
    if name in ("", "identity"):
        return ""
    name = "gzip" if name == "x-gzip" else name
    if name not in ACCEPTED:
        raise UnsupportedMediaType(
            f"Content-Encoding {content_encoding[:64]!r} is not supported; use one of {', '.join(ACCEPTED)}",
            param="Content-Encoding",
        )
    return name


def pieces(coding: str, data: bytes, limit: int) -> Iterator[bytes]:
    """The bytes behind ``data``, which is encoded with ``coding`` (one of :data:`ACCEPTED`), in pieces of at
    most 256 KiB, each made when it is asked for.

    Raises InvalidArgument if ``data`` is not exactly one valid stream, PayloadTooLarge as soon as the result
    is longer than ``limit`` bytes.
    """
    total = 0
    for piece in _unbrotli(data) if coding == "br" else _inflate(coding, data):
        total += len(piece)
        if total > limit:
            raise PayloadTooLarge(
                f"the decoded body is larger than {limit} bytes", code="DECODED_BODY_TOO_LARGE"
            )
        yield piece


def encode(coding: str, data: bytes) -> bytes:
    """``data`` as ``gzip`` or ``deflate`` (zlib format), at the level that costs the least time."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    return compressor.compress(data) + compressor.flush()


def preferred(accept_encoding: str) -> str:
    """Which of ``gzip`` and ``deflate`` an ``Accept-Encoding`` header prefers; "" for neither."""
    best, best_quality = "", 0.0
    for item in accept_encoding.lower().split(",", 16)[:16]:
        name, _, parameters = item.partition(";")
        name = name.strip()
        if name not in ("gzip", "deflate"):
            continue
        quality = 1.0
        key, _, value = parameters.strip().partition("=")
        if key.strip() == "q":
            try:
                quality = float(value)
            except ValueError:
                quality = 0.0
        if quality > best_quality:
            best, best_quality = name, quality
    return best


def _inflate(coding: str, data: bytes) -> Iterator[bytes]:
    if coding == "gzip":
        window = 31
    else:
        # HTTP's "deflate" is the zlib format; some clients send the bare stream, which has no header.
        has_header = len(data) >= 2 and data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
        window = 15 if has_header else -15
    view = memoryview(data)
    stream, members = zlib.decompressobj(window), 1
    try:
        for start in range(0, len(view), _STEP_IN):
            pending: bytes | memoryview = view[start : start + _STEP_IN]
            while pending:
                if stream.eof:
                    members += 1
                    if coding != "gzip" or members > _MAX_MEMBERS:
                        raise _broken(coding, "has bytes after its end")
                    stream = zlib.decompressobj(window)
                yield stream.decompress(pending, _STEP_OUT)
                pending = stream.unconsumed_tail or stream.unused_data
        while not stream.eof:
            if not (rest := stream.decompress(b"", _STEP_OUT)):
                break
            yield rest
    except zlib.error:
        raise _broken(coding, "is not a valid stream") from None
    if not stream.eof:
        raise _broken(coding, "ends early")


def _unbrotli(data: bytes) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    try:
        for start in range(0, len(data), _STEP_IN):
            pending = data[start : start + _STEP_IN]
            piece = stream.process(pending, output_buffer_limit=_STEP_OUT)
            while piece:
                yield piece
                # A full step may have more behind it, with or without input that is left.
                full = len(piece) >= _STEP_OUT and not stream.is_finished()
                piece = stream.process(b"", output_buffer_limit=_STEP_OUT) if full else b""
            if stream.is_finished() and start + _STEP_IN < len(data):
                raise _broken("br", "has bytes after its end")
    except brotli.error:
        raise _broken("br", "is not a valid stream") from None
    if not stream.is_finished():
        raise _broken("br", "ends early")


def _broken(coding: str, why: str) -> InvalidArgument:
    return InvalidArgument(
        f"the body says Content-Encoding {coding} but {why}",
        param="Content-Encoding",
        code="BODY_UNDECODABLE",
    )
