"""Which kind of file a capture is, found from its content; names and content types play no part."""

from __future__ import annotations

import dataclasses
import struct
from typing import Final

from nonet.runtime.errors import InvalidArgument
from nonet.services.raw_image.camera import read_camera_file
from nonet.services.raw_image.capture import Capture
from nonet.services.raw_image.limits import PARAM, RawLimits, too_large, unsupported
from nonet.services.raw_image.mosaics import check_levels, read_npy, read_png, read_samples, read_tiff
from nonet.services.raw_image.options import DevelopOptions
from nonet.services.raw_image.tiff_tree import check_tree, is_developed, is_mosaic

_TIFF: Final = (b"II\x2a\x00", b"MM\x00\x2a")
_CAMERA: Final = (
    *_TIFF,
    b"IIRO",  # Olympus
    b"IIRS",
    b"MMOR",
    b"IIU\x00",  # Panasonic, Leica
    b"FUJIFILMCCD-RAW",
    b"\x00MRM",  # Minolta
    b"IIII",  # Phase One
    b"MMMM",
)
_NAMED: Final = (
    (b"PK\x03\x04", "a ZIP archive"),
    (b"PK\x05\x06", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\xff\xd8\xff", "a JPEG, which a camera has developed already,"),
    (b"RIFF", "a WebP or other RIFF file"),
    (b"GIF8", "a GIF"),
    (b"%PDF", "a PDF"),
    (b"FOVb", "a capture of a Foveon sensor (X3F)"),
)
_HEAD: Final = 32  # no signature above is longer
_ARCHIVE_END: Final = b"PK\x05\x06"
_ARCHIVE_RECORD: Final = 22
_ARCHIVE_TAIL: Final = _ARCHIVE_RECORD + 65_535


def read_capture(data: bytes, options: DevelopOptions, limits: RawLimits, *, seconds: float) -> Capture:
    """The capture in ``data``.

    Args:
        data: a camera file or a mosaic.
        options: phase, levels and size of a mosaic; for a camera file levels replace the file's own.
        limits: bounds, checked against the header before pixels are decoded.
        seconds: time left before the deadline.

    Raises InvalidArgument (400), PayloadTooLarge (413) and UndecodableMedia (415), which say what is
    accepted.
    """
    capture = _mosaic(data, options, limits, decode=True)
    if capture is not None:
        return capture
    return _with_options(read_camera_file(data, limits, seconds=seconds), options)


def check_capture(data: bytes, options: DevelopOptions, limits: RawLimits) -> Capture | None:
    """What can be said of a capture before its pixels are decoded.

    Refuses, in the same words, what :func:`read_capture` refuses for anything but its pixels. A mosaic comes
    back with all samples 0; of a camera file only the decoder knows more, so that is None.
    """
    return _mosaic(data, options, limits, decode=False)


def _mosaic(data: bytes, options: DevelopOptions, limits: RawLimits, *, decode: bool) -> Capture | None:
    """The capture, None for a camera file that is sound as far as can be seen from here."""
    if not data:
        raise InvalidArgument("raw: the file is empty", param=PARAM, code="RAW_EMPTY")
    if len(data) > limits.encoded_bytes:
        raise too_large(f"{len(data)} bytes are more than the limit of {limits.encoded_bytes} bytes")
    if options.size is not None:
        return read_samples(data, options, limits, decode=decode)
    _refuse_archive(data)
    head = data[:_HEAD]
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return read_png(data, options, limits, decode=decode)
    if head.startswith(b"\x93NUMPY"):
        return read_npy(data, options, limits, decode=decode)
    if head.startswith(_TIFF):
        if is_mosaic(data):
            return read_tiff(data, options, limits, decode=decode)
        if is_developed(data):
            raise unsupported("a TIFF of several channels, which was developed already, is not a raw capture")
        check_tree(data, limits)
    if head.startswith(_CAMERA) or head[6:14] == b"HEAPCCDR" or head[4:12] == b"ftypcrx ":
        return None
    name = next((name for magic, name in _NAMED if head.startswith(magic)), "this content")
    raise unsupported(f"{name} is not a raw capture")


def _with_options(capture: Capture, options: DevelopOptions) -> Capture:
    """The camera's own facts, with the levels that the caller knows better."""
    if options.cfa is not None and options.cfa != capture.cfa:
        raise InvalidArgument(
            f"cfa {options.cfa} contradicts the camera file, which says {capture.cfa}; leave cfa out",
            param="cfa",
        )
    return check_levels(
        dataclasses.replace(
            capture, black=options.black or capture.black, white=options.white or capture.white
        )
    )


def _refuse_archive(data: bytes) -> None:
    """Refuse a capture that is a ZIP archive as well: its end record must reach the file's end exactly."""
    position = data.rfind(_ARCHIVE_END, max(0, len(data) - _ARCHIVE_TAIL))
    while position >= 0:
        if position + _ARCHIVE_RECORD <= len(data):
            (comment,) = struct.unpack_from("<H", data, position + _ARCHIVE_RECORD - 2)
            if position + _ARCHIVE_RECORD + comment == len(data):
                raise unsupported("the file is a ZIP archive")
        position = data.rfind(_ARCHIVE_END, max(0, len(data) - _ARCHIVE_TAIL), position)
