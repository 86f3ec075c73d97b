"""TIFF: what the first page says of its pixels, judged before any of them is decoded.

One table, :data:`KINDS`, says which photometric interpretations become a picture, with how many colours and
at which depths; :mod:`.tiff_colour` holds the conversion of each. What the table does not hold is refused by
its name: signed, floating-point and 32-bit samples, for which TIFF defines no brightness, among them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import ImageLimits, corrupt, too_large, truncated, unsupported
from nonet.runtime.images.tags import ORIENTATION, orientation_of, read_first_directory
from nonet.runtime.images.tiff_layout import BT601, FULL_RANGE, TiffLayout

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIP_OFFSETS, _SAMPLES, _ROWS_PER_STRIP, _STRIP_LENGTHS, _PLANAR = 273, 277, 278, 279, 284
_PREDICTOR, _PALETTE, _TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_LENGTHS = 317, 320, 322, 323, 324, 325
_INK_SET, _EXTRA, _SAMPLE_FORMAT = 332, 338, 339
_COEFFICIENTS, _SUBSAMPLING, _REFERENCE, _PROFILE = 529, 530, 532, 34675
_PIECES_LIMIT: Final = 1 << 20
_MOST_SAMPLES: Final = 8
_BYTES_A_PIXEL: Final = 6
"""Bytes of samples that a page may hold for each pixel that the limit allows: three of 16 bits."""

UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACK_BITS = 1, 5, 8, 32946, 32773
COMPRESSIONS: Final = frozenset({UNCOMPRESSED, LZW, DEFLATE, OLD_DEFLATE, PACK_BITS})
"""Whose decoders notice missing data. In fax codes and JPEG what is missing is filled in silently."""
_COMPRESSION_NAMES: Final[Mapping[int, str]] = {
    2: "CCITT modified Huffman",
    3: "CCITT group 3",
    4: "CCITT group 4",
    6: "old-style JPEG",
    7: "JPEG",
    34676: "SGI LogLuv",
    34677: "SGI LogLuv",
    34712: "JPEG 2000",
    34887: "LERC",
    34892: "JPEG",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    50002: "JPEG XL",
}
_PREDICTED: Final = frozenset({LZW, DEFLATE, OLD_DEFLATE})

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB, ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
UNSIGNED, SIGNED, FLOAT, UNDEFINED = 1, 2, 3, 4
UNSPECIFIED, ASSOCIATED, STRAIGHT = 0, 1, 2


@dataclasses.dataclass(frozen=True, slots=True)
class Kind:
    """A photometric interpretation that becomes a picture: its name, colours, and depths it may have."""

    name: str
    colours: int
    depths: frozenset[int]
    formats: frozenset[int] = frozenset({UNSIGNED, UNDEFINED})


_ANY_DEPTH: Final = frozenset(range(1, 17))
KINDS: Final[Mapping[int, Kind]] = {
    WHITE_IS_ZERO: Kind("grey (white is 0)", 1, _ANY_DEPTH),
    BLACK_IS_ZERO: Kind("grey (black is 0)", 1, _ANY_DEPTH),
    RGB: Kind("RGB", 3, _ANY_DEPTH),
    PALETTE: Kind("palette", 1, frozenset(range(1, 9))),
    CMYK: Kind("CMYK", 4, _ANY_DEPTH),
    YCBCR: Kind("YCbCr", 3, frozenset({8})),
    CIELAB: Kind("CIELab", 3, frozenset({8, 16}), frozenset({UNSIGNED, SIGNED, UNDEFINED})),
    ICCLAB: Kind("ICCLab", 3, frozenset({8, 16})),
}
"""Every kind of page that is decoded, by the tag PhotometricInterpretation."""
_SUBSAMPLINGS: Final = frozenset({(1, 1), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4)})
_OTHER_KINDS: Final[Mapping[int, str]] = {
    4: "a transparency mask",
    10: "ITULab",
    32803: "the mosaic of a sensor",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_FORMAT_NAMES: Final[Mapping[int, str]] = {
    SIGNED: "signed integers",
    FLOAT: "floating-point numbers",
    5: "complex integers",
    6: "complex numbers",
}


def inspect_tiff(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Read the first tag directory and check that every strip or tile lies inside the file.

    Raises Refusal for a file that is cut off, damaged, over a limit, or of a kind that :data:`KINDS` lacks.
    """
    layout, tags, following = read_layout(data, limits)
    _check_kind(layout, tags)
    frames = 2 if following else 1
    limits.check_frames(frames)
    return ImageHeader(
        format="TIFF",
        width=layout.width,
        height=layout.height,
        payload=data,
        orientation=layout.orientation,
        profile=bytes(int(value) & 0xFF for value in tags.get(_PROFILE, ())),
        frames=frames,
        layout=layout,
    )


Tags = Mapping[int, tuple[float, ...]]


def read_layout(
    data: bytes, limits: ImageLimits, more: Mapping[int, int] | None = None
) -> tuple[TiffLayout, Tags, int]:
    """The layout of the first page whatever its samples mean, its tags, and the offset of the next page.

    ``more`` are further tags that are wanted, with the largest counts. Raises Refusal as
    :func:`inspect_tiff`, for kinds of storage that are not read.
    """
    wanted = {
        **dict.fromkeys((_WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _SAMPLES), 1),
        **dict.fromkeys((_ROWS_PER_STRIP, _PLANAR, _PREDICTOR, _TILE_WIDTH, _TILE_HEIGHT, _INK_SET), 1),
        **dict.fromkeys((_STRIP_OFFSETS, _STRIP_LENGTHS, _TILE_OFFSETS, _TILE_LENGTHS), _PIECES_LIMIT),
        **dict.fromkeys((_BITS, _EXTRA, _SAMPLE_FORMAT), 1 << 16),
        ORIENTATION: 1,
        _PALETTE: 3 << 16,
        _SUBSAMPLING: 2,
        _COEFFICIENTS: 3,
        _REFERENCE: 6,
        _PROFILE: limits.profile_bytes,
        **(more or {}),
    }
    directory = read_first_directory(data, wanted)
    if directory is None:
        raise corrupt("the TIFF header is damaged")
    tags, following = directory
    one = _Single(tags)
    width, height = one(_WIDTH, 0), one(_HEIGHT, 0)
    if _WIDTH not in tags or _HEIGHT not in tags:
        raise corrupt("a TIFF without a size")
    limits.check_size(width, height)
    samples, photometric = one(_SAMPLES, 1), one(_PHOTOMETRIC, -1)
    if not 1 <= samples <= _MOST_SAMPLES:
        raise unsupported(f"a TIFF with {samples} samples a pixel is not decoded")
    compression, predictor = one(_COMPRESSION, 1), one(_PREDICTOR, 1)
    if compression not in COMPRESSIONS:
        name = _COMPRESSION_NAMES.get(compression, f"number {compression}")
        raise unsupported(
            f"a TIFF in the compression {name} is not decoded; store it in LZW, Deflate or none"
        )
    tiled = _TILE_OFFSETS in tags
    piece = (one(_TILE_WIDTH, 0), one(_TILE_HEIGHT, 0)) if tiled else (width, one(_ROWS_PER_STRIP, height))
    if min(piece) < 1:
        raise corrupt("a TIFF whose strips or tiles have no size")
    layout = TiffLayout(
        order="<" if data[:2] == b"II" else ">",
        width=width,
        height=height,
        bits=_same(tags.get(_BITS, (1,)), "depth"),
        samples=samples,
        sample_format=_same(tags.get(_SAMPLE_FORMAT, (UNSIGNED,)), "kind"),
        photometric=photometric,
        planar=one(_PLANAR, 1) == 2 and samples > 1,
        reversed_bits=one(_FILL_ORDER, 1) == 2,
        compression=compression,
        predictor=predictor,
        piece=piece if tiled else (width, min(piece[1], height)),
        tiled=tiled,
        offsets=_whole(tags.get(_TILE_OFFSETS if tiled else _STRIP_OFFSETS, ())),
        lengths=_whole(tags.get(_TILE_LENGTHS if tiled else _STRIP_LENGTHS, ())),
        orientation=orientation_of(tags),
        extra=_extra(tags, samples, photometric),
        palette=_whole(tags.get(_PALETTE, ())),
        subsampling=_subsampling(tags) if photometric == YCBCR else (1, 1),
        reference=tags.get(_REFERENCE, FULL_RANGE),
        coefficients=tags.get(_COEFFICIENTS, BT601),
    )
    _check_predictor(layout)
    return _with_pieces(layout, len(data), limits), tags, following


class _Single:
    """Reads tags of one value."""

    def __init__(self, tags: Tags) -> None:
        self._tags = tags

    def __call__(self, tag: int, default: int) -> int:
        return int(self._tags.get(tag, (default,))[0])


def _whole(values: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)


def _same(values: tuple[float, ...], what: str) -> int:
    if len(set(values)) != 1:
        raise unsupported(f"a TIFF whose channels differ in {what} is not decoded")
    return int(values[0])


def _extra(tags: Tags, samples: int, photometric: int) -> tuple[int | None, ...]:
    """What the samples behind the colours are. One that nothing explains may be opacity or not."""
    kind = KINDS.get(photometric)
    said: tuple[int | None, ...] = _whole(tags.get(_EXTRA, ()))
    if not said and kind is not None and samples == kind.colours + 1:
        return (None,)
    return said


def _subsampling(tags: Tags) -> tuple[int, int]:
    across, down = _whole(tags.get(_SUBSAMPLING, (2, 2)))
    if (across, down) not in _SUBSAMPLINGS:
        raise unsupported(f"a YCbCr TIFF subsampled by {across} x {down} is not decoded")
    return across, down


def _check_predictor(layout: TiffLayout) -> None:
    if layout.predictor == 1:
        return
    usable = layout.predictor == 2 and layout.compression in _PREDICTED and layout.bits in (8, 16, 32)
    if not usable or layout.subsampling != (1, 1):
        raise unsupported(
            f"a TIFF with predictor {layout.predictor} in this compression and depth is not decoded"
        )


def _with_pieces(layout: TiffLayout, size: int, limits: ImageLimits) -> TiffLayout:
    """The layout with exactly the pieces that the page needs, all of them inside the file."""
    across = -(-layout.width // layout.piece[0])
    down = -(-layout.height // layout.piece[1])
    planes = layout.samples if layout.planar else 1
    needed, most = across * down * planes, _BYTES_A_PIXEL * limits.pixels
    blocks = -(-layout.piece[1] // layout.subsampling[1])
    if layout.bits < 1 or needed * layout.row_bytes * blocks > most:
        raise too_large(f"its samples take more than the limit of {most} bytes")
    offsets, lengths = layout.offsets[:needed], layout.lengths[:needed]
    if len(offsets) < needed:
        raise truncated("strips or tiles of the TIFF are missing")
    if not lengths and layout.compression == UNCOMPRESSED:
        rows = [layout.piece_rows(index // across % down) for index in range(needed)]
        lengths = tuple(layout.row_bytes * -(-row // layout.subsampling[1]) for row in rows)
    if len(lengths) < needed:
        raise corrupt("a TIFF that does not say where its pixels are")
    if any(offset + length > size for offset, length in zip(offsets, lengths, strict=True)):
        raise truncated("pixels of the TIFF are missing")
    return dataclasses.replace(layout, offsets=offsets, lengths=lengths)


def _check_kind(layout: TiffLayout, tags: Tags) -> None:
    """Raises Refusal unless the samples of the page have one meaning that we know."""
    kind = KINDS.get(layout.photometric)
    if kind is None:
        name = _OTHER_KINDS.get(layout.photometric, "of an unknown kind")
        raise unsupported(f"a TIFF whose samples are {name} is not decoded")
    if layout.sample_format not in kind.formats:
        name = _FORMAT_NAMES.get(layout.sample_format, "of an unknown format")
        raise unsupported(
            f"a {kind.name} TIFF whose samples are {name} is not decoded: no brightness is defined for them"
        )
    if layout.bits not in kind.depths:
        raise unsupported(f"a {kind.name} TIFF of {layout.bits} bits a sample is not decoded; send 8 or 16")
    if layout.samples != kind.colours + len(layout.extra):
        raise unsupported(
            f"a {kind.name} TIFF of {layout.samples} samples a pixel, {len(layout.extra)} of them extra, is "
            "not decoded"
        )
    if layout.photometric == PALETTE and len(layout.palette) != 3 << layout.bits:
        raise corrupt("a palette TIFF without its colour map")
    if layout.photometric == CMYK and int(tags.get(_INK_SET, (1,))[0]) != 1:
        raise unsupported("a TIFF in other inks than CMYK is not decoded")
    if layout.photometric == YCBCR:
        _check_ycbcr(layout)


def _check_ycbcr(layout: TiffLayout) -> None:
    low, high = layout.reference[0::2], layout.reference[1::2]
    usable = (
        len(low) == len(high) == len(layout.coefficients) == 3
        and all(abs(white - black) >= 1 for black, white in zip(low, high, strict=True))
        and layout.coefficients[1] > 0
    )
    if not usable:
        raise unsupported("a YCbCr TIFF with unusable reference levels or coefficients is not decoded")
    if layout.subsampling != (1, 1) and (layout.planar or layout.extra):
        raise unsupported("a YCbCr TIFF that is subsampled in planes or beside other samples is not decoded")
