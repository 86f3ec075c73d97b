"""What a raw capture may cost, and the ways in which one is refused."""

from __future__ import annotations

import dataclasses
from typing import Final

from nonet.runtime.errors import InvalidArgument, PayloadTooLarge, UndecodableMedia

PARAM: Final = "raw"
ACCEPTED: Final = (
    "camera files with a Bayer sensor (DNG, CR2, CR3, NEF, ARW, ORF, RW2, RAF, PEF, SRW, KDC, ...) and Bayer "
    "mosaics as 16-bit PNG or TIFF of one channel, as NPY of shape (height, width), or as bare 16-bit "
    "samples with 'width' and 'height'"
)
"""The accepted content as messages name it."""


@dataclasses.dataclass(frozen=True, slots=True)
class RawLimits:
    """Bounds for one capture. Raises ValueError for a bound outside its range.

    Args:
        encoded_bytes: size of the file.
        pixels: width times height, known from the header before a pixel is decoded. A development takes
            about 6 bytes a pixel for 8-bit and 9 for 16-bit pictures beside the file itself.
        side: longest side in pixels.
        camera_seconds: longest time the decoder of camera files may take.
        camera_bytes: address space of the process that decodes camera files.
    """

    encoded_bytes: int = 256 << 20
    pixels: int = 64_000_000
    side: int = 32_768
    camera_seconds: float = 120.0
    camera_bytes: int = 3 << 30

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise ValueError(f"RawLimits.{field.name} must be positive")

    def check_size(self, width: int, height: int) -> None:
        """Raises PayloadTooLarge for a capture over the limits, InvalidArgument for one below 2 x 2."""
        if width < 2 or height < 2:
            raise corrupt(f"its header says {width} x {height} pixels; a Bayer mosaic has at least 2 x 2")
        if width * height > self.pixels:
            raise too_large(f"{width} x {height} pixels are more than the limit of {self.pixels} pixels")
        if max(width, height) > self.side:
            raise too_large(f"{width} x {height} pixels have a side longer than the limit of {self.side}")


def truncated(what: str) -> InvalidArgument:
    """400: the file ends before its pixels do."""
    return InvalidArgument(
        f"raw: the file is cut off ({what}); send the whole file", param=PARAM, code="RAW_TRUNCATED"
    )


def corrupt(what: str) -> InvalidArgument:
    """400: the file contradicts itself."""
    return InvalidArgument(f"raw: the file is damaged ({what})", param=PARAM, code="RAW_CORRUPT")


def wrong_form(what: str, code: str) -> InvalidArgument:
    """400: a sound file whose pixels are not a Bayer mosaic as we take it."""
    return InvalidArgument(f"raw: {what}", param=PARAM, code=code)


def too_large(what: str) -> PayloadTooLarge:
    """413: over a limit."""
    return PayloadTooLarge(f"raw: {what}", param=PARAM, code="RAW_TOO_LARGE")


def unsupported(what: str, code: str = "RAW_UNSUPPORTED") -> UndecodableMedia:
    """415: content, or a kind of sensor, that is not developed."""
    return UndecodableMedia(f"raw: {what}; accepted are {ACCEPTED}", param=PARAM, code=code)
