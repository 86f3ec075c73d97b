"""Where the samples of a TIFF page are and how they are stored, as plain facts."""

from __future__ import annotations

import dataclasses
from typing import Final

BT601: Final = (0.299, 0.587, 0.114)
FULL_RANGE: Final = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


@dataclasses.dataclass(frozen=True, slots=True)
class TiffLayout:
    """Where the samples of a page are and what they mean; sizes in pixels, checked against the file.

    Args:
        order: ``<`` or ``>``, of samples of several bytes.
        width, height: of the page as it is stored.
        bits: of a sample; the same for all.
        samples: of a pixel, extra ones included.
        sample_format: the tag SampleFormat.
        photometric: the tag PhotometricInterpretation; -1 if the page does not say.
        planar: whether each piece holds one sample of its pixels.
        reversed_bits: whether the first bit of a byte is its lowest.
        compression, predictor: the tags of these names.
        piece: width and height of a strip or tile.
        tiled: whether all pieces have that size; the last strip is lower.
        offsets, lengths: of the pieces in the file, in bytes.
        extra: meaning of the samples behind the colours; a single one that is not explained is ``None``.
        palette: the colour map, reds first; empty if there is none.
        subsampling: pixels that share a colour difference, across and down.
        reference: black and white of each channel of YCbCr.
        coefficients: shares of red, green and blue in the brightness of YCbCr.
    """

    order: str
    width: int
    height: int
    bits: int
    samples: int
    sample_format: int
    photometric: int
    planar: bool
    reversed_bits: bool
    compression: int
    predictor: int
    piece: tuple[int, int]
    tiled: bool
    offsets: tuple[int, ...]
    lengths: tuple[int, ...]
    orientation: int = 1
    extra: tuple[int | None, ...] = ()
    palette: tuple[int, ...] = ()
    subsampling: tuple[int, int] = (1, 1)
    reference: tuple[float, ...] = FULL_RANGE
    coefficients: tuple[float, ...] = BT601

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of one piece; of a YCbCr page, of a row of its blocks."""
        width, together = self.piece[0], 1 if self.planar else self.samples
        if self.subsampling != (1, 1):
            across, down = self.subsampling
            return -(-width // across) * (across * down + 2)
        return -(-width * together * self.bits // 8)

    def piece_rows(self, row: int) -> int:
        """Rows of pixels of the pieces in that row of pieces."""
        height = self.piece[1]
        return height if self.tiled else min(height, self.height - row * height)
