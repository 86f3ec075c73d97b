"""Which format a file really has. Names and content types of the sender play no part."""

from __future__ import annotations

from typing import Final

from nonet.runtime.images.limits import unsupported

_REFUSED: Final[tuple[tuple[bytes, str], ...]] = (
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x02\x00", "CUR"),
    (b"8BPS", "Photoshop"),
    (b"PK\x03\x04", "ZIP"),
    (b"PK\x05\x06", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL", "JPEG XL"),
    (b"DDS ", "DDS"),
    (b"v/1\x01", "OpenEXR"),
    (b"icns", "ICNS"),
    (b"II\x2b\x00", "BigTIFF"),
    (b"MM\x00\x2b", "BigTIFF"),
)
_HEIF_BRANDS: Final = {b"avif": "AVIF", b"avis": "AVIF", b"crx ": "camera raw"}
_ARCHIVE_END: Final = b"PK\x05\x06"
_ARCHIVE_TAIL: Final = 22 + 65_535


def sniff(data: bytes) -> str:
    """Pillow's name of the accepted format that ``data`` starts as.

    Raises Refusal for every other content, named where it is well known.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith((b"II\x2a\x00", b"MM\x00\x2a")):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    raise unsupported(f"{_refused_name(data)} is not an accepted format")


def refuse_archive(data: bytes, end: int) -> None:
    """Refuse a file that is a picture up to ``end`` and a ZIP archive as a whole (415).

    Other bytes behind the picture are normal: phones append videos and second pictures to a JPEG.
    """
    if data.find(_ARCHIVE_END, max(end, len(data) - _ARCHIVE_TAIL)) >= 0:
        raise unsupported("the file is a ZIP archive as well as a picture, which")


def _refused_name(data: bytes) -> str:
    for magic, name in _REFUSED:
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return _HEIF_BRANDS.get(data[8:12], "HEIF or video")
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml", b"<!doctype svg")):
        return "SVG or XML"
    return "this content"
