"""What a file says of how its capture was taken: camera, lens, exposure, time. Written into the picture.

Where the capture was taken is not carried over: a picture is passed on more easily than a capture.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from typing import Final

from PIL import Image, TiffImagePlugin

EXIF_DIRECTORY: Final = 34665
_ORIENTATION, _COLOUR_SPACE, _SRGB, _UNCALIBRATED = 274, 40961, 1, 0xFFFF
_MAX_TEXT: Final = 256
_EXIF_MARK: Final = b"Exif\x00\x00"
_SEARCHED: Final = 1 << 16

TEXT, SHORT, LONG, FRACTION, SIGNED_FRACTION, BYTES = 2, 3, 4, 5, 10, 7
MAIN: Final[Mapping[int, int]] = {
    270: TEXT,  # ImageDescription
    271: TEXT,  # Make
    272: TEXT,  # Model
    306: TEXT,  # DateTime
    315: TEXT,  # Artist
    33432: TEXT,  # Copyright
}
"""Tags of the main directory that are carried over, and the type each has."""
EXIF: Final[Mapping[int, int]] = {
    33434: FRACTION,  # ExposureTime
    33437: FRACTION,  # FNumber
    34850: SHORT,  # ExposureProgram
    34855: SHORT,  # PhotographicSensitivity
    36867: TEXT,  # DateTimeOriginal
    36868: TEXT,  # DateTimeDigitized
    36880: TEXT,  # OffsetTime
    36881: TEXT,  # OffsetTimeOriginal
    37377: SIGNED_FRACTION,  # ShutterSpeedValue
    37378: FRACTION,  # ApertureValue
    37380: SIGNED_FRACTION,  # ExposureBiasValue
    37383: SHORT,  # MeteringMode
    37385: SHORT,  # Flash
    37386: FRACTION,  # FocalLength
    41989: SHORT,  # FocalLengthIn35mmFilm
    42033: TEXT,  # BodySerialNumber
    42034: FRACTION,  # LensSpecification
    42035: TEXT,  # LensMake
    42036: TEXT,  # LensModel
}
"""The same of the Exif directory."""

Value = str | tuple[float, ...] | tuple[tuple[int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Shot:
    """Values by tag; texts, numbers, or fractions as pairs."""

    main: Mapping[int, Value] = dataclasses.field(default_factory=dict)
    exif: Mapping[int, Value] = dataclasses.field(default_factory=dict)

    def block(self, *, srgb: bool) -> bytes:
        """As a TIFF structure, for the Exif blocks of JPEG, PNG and WebP, and of a TIFF: an upright picture
        in sRGB, or of no stated colours."""
        made = Image.Exif()
        made[_ORIENTATION] = 1
        for tag, value in self.main.items():
            made[tag] = _written(value)
        inner = made.get_ifd(EXIF_DIRECTORY)
        for tag, value in self.exif.items():
            inner[tag] = _written(value)
        inner[_COLOUR_SPACE] = _SRGB if srgb else _UNCALIBRATED
        return made.tobytes().removeprefix(b"Exif\x00\x00")


NO_SHOT: Final = Shot()
"""Of a file that says nothing."""


def read_shot(data: bytes) -> Shot:
    """What a TIFF structure says, wherever in a file it was; what is damaged or missing is left out."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return NO_SHOT
    (start,) = struct.unpack_from(order + "I", data, 4)
    main = _directory(data, order, start, {**MAIN, EXIF_DIRECTORY: LONG})
    match main.pop(EXIF_DIRECTORY, ()):
        case (int(place), *_):
            return Shot(main, _directory(data, order, place, EXIF))
    return Shot(main)


def find_shot(data: bytes) -> Shot:
    """What a camera file says; for formats that are not TIFF, in the Exif blocks that they hold."""
    if data[:15] == b"FUJIFILMCCD-RAW" and len(data) > 92:
        (start,) = struct.unpack_from(">I", data, 84)  # its preview is a JPEG
        mark = data.find(_EXIF_MARK, start, start + _SEARCHED)
        return read_shot(data[mark + len(_EXIF_MARK) : mark + _SEARCHED]) if mark >= 0 else NO_SHOT
    if data[4:12] == b"ftypcrx ":
        main, inner = (data.find(name, 0, _SEARCHED) + 4 for name in (b"CMT1", b"CMT2"))
        first = read_shot(data[main : main + _SEARCHED]).main if main > 3 else {}
        block = data[inner : inner + _SEARCHED] if inner > 3 else b""
        order = {b"II": "<", b"MM": ">"}.get(block[:2])
        return Shot(first, _directory(block, order, 8, EXIF) if order else {})
    return read_shot(data)


def _directory(data: bytes, order: str, start: int, wanted: Mapping[int, int]) -> dict[int, Value]:
    found: dict[int, Value] = {}
    if start + 2 > len(data):
        return found
    (entries,) = struct.unpack_from(order + "H", data, start)
    for position in range(start + 2, min(start + 2 + 12 * entries, len(data) - 11), 12):
        tag, kind, count = struct.unpack_from(order + "HHI", data, position)
        if tag in wanted and tag not in found:
            value = _value(data, order, position + 8, kind, count, wanted[tag])
            if value is not None:
                found[tag] = value
    return found


def _value(data: bytes, order: str, place: int, kind: int, count: int, wanted: int) -> Value | None:
    """A value of the type that the tag has; None for another one, or what lies outside the file."""
    size = {TEXT: 1, SHORT: 2, LONG: 4, FRACTION: 8, SIGNED_FRACTION: 8}.get(kind)
    if size is None or not 0 < count <= _MAX_TEXT:
        return None
    if kind != wanted and {kind, wanted} != {SHORT, LONG}:
        return None
    if size * count > 4:
        (place,) = struct.unpack_from(order + "I", data, place)
    if place + size * count > len(data):
        return None
    if kind == TEXT:
        text = data[place : place + count].split(b"\0")[0].decode("utf-8", "replace")
        return "".join(letter for letter in text if letter.isprintable()).strip() or None
    if kind in (SHORT, LONG):
        numbers: tuple[float, ...] = struct.unpack_from(
            f"{order}{count}{'H' if kind == SHORT else 'I'}", data, place
        )
        return numbers
    parts = struct.unpack_from(f"{order}{2 * count}{'I' if kind == FRACTION else 'i'}", data, place)
    if 0 in parts[1::2]:
        return None  # not known
    return tuple(zip(parts[::2], parts[1::2], strict=True))


def _written(value: Value) -> object:
    """As Pillow takes it."""
    if isinstance(value, str):
        return value
    parts = [TiffImagePlugin.IFDRational(*part) if isinstance(part, tuple) else part for part in value]
    return parts[0] if len(parts) == 1 else tuple(parts)
