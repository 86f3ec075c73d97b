"""From the samples of a TIFF page to colours of 8 bits, by the rule of its photometric interpretation.

- Depth: of more than 8 bits the high ones count; fewer are spread over 0 to 255.
- White is 0: the scale is turned over. Palette: the high bytes of the colour map; a map without any value
  above 255 is taken for one of bytes, as libtiff does, since old writers made such.
- CMYK: 0 is no ink.
- YCbCr: TIFF 6.0, section 21, with the page's own coefficients and reference levels; colours that pixels
  share are repeated.
- CIELab and ICCLab: by LittleCMS, white being its own.
- Extra samples: the first that is said to be opacity is; associated opacity is divided out. Those of no
  stated meaning are no opacity. A single one that the page does not mention at all is opacity, as old writers
  left the tag out, unless it would hide the whole page.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from nonet.runtime.images import tiff
from nonet.runtime.images.tiff import KINDS
from nonet.runtime.images.tiff_layout import BT601, FULL_RANGE, TiffLayout
from nonet.runtime.images.tiff_samples import block_rows, sample_rows
from nonet.runtime.tensors import Array

Bytes = npt.NDArray[np.uint8]
_MODES: Final = {tiff.CMYK: "CMYK"}
_STRIP: Final = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """Colours in mode L, RGB or CMYK, and opacity in mode L, None where all is opaque."""

    colours: Image.Image
    alpha: Image.Image | None


def read_page(data: bytes, layout: TiffLayout) -> Page:
    """The first page of a TIFF whose layout was checked. Raises Refusal for samples that are not whole."""
    kind = KINDS[layout.photometric]
    at = _alpha_place(layout)
    channels = kind.colours + (at is not None)
    values = np.empty((layout.height, layout.width, channels), dtype=np.uint8)
    parts = sample_rows if layout.subsampling == (1, 1) else block_rows
    for part in parts(data, layout):
        rows = slice(part.top, part.top + part.samples.shape[0])
        columns = slice(part.left, part.left + part.samples.shape[1])
        for index in range(part.samples.shape[2]):
            sample = part.plane + index
            channel = kind.colours if sample == at else sample
            if sample < kind.colours or sample == at:
                values[rows, columns, channel] = _bytes_of(part.samples[:, :, index], layout, sample == at)
    colours = values[:, :, : kind.colours]
    alpha = None if at is None else np.ascontiguousarray(values[:, :, kind.colours])
    if alpha is not None and layout.extra[0] is None and not alpha.any():
        alpha = None
    if alpha is not None and at is not None and layout.extra[at - kind.colours] == tiff.ASSOCIATED:
        _divide(colours, alpha)
    picture = _picture(colours, layout)
    return Page(picture, None if alpha is None else Image.fromarray(alpha))


def _alpha_place(layout: TiffLayout) -> int | None:
    """The number of the sample that is opacity."""
    colours = KINDS[layout.photometric].colours
    for index, meaning in enumerate(layout.extra):
        if meaning in (None, tiff.ASSOCIATED, tiff.STRAIGHT):
            return colours + index
    return None


def _bytes_of(samples: Array, layout: TiffLayout, opacity: bool) -> Bytes:
    """One channel in 8 bits; indices into a palette as they are."""
    if layout.photometric == tiff.PALETTE and not opacity:
        return samples.astype(np.uint8)
    if layout.bits > 8:
        found: Bytes = (samples >> (layout.bits - 8)).astype(np.uint8)
    elif layout.bits < 8:
        found = np.rint(samples * (255 / ((1 << layout.bits) - 1))).astype(np.uint8)
    else:
        found = samples.astype(np.uint8, copy=False)
    return 255 - found if layout.photometric == tiff.WHITE_IS_ZERO and not opacity else found


def _divide(colours: Bytes, alpha: Bytes) -> None:
    """Undo the multiplication of ``colours`` [height, width, n] by their opacity, in place."""
    step = max(1, _STRIP // colours.shape[1])
    for top in range(0, len(colours), step):
        part, over = colours[top : top + step], alpha[top : top + step, :, None].astype(np.float32)
        part[:] = np.minimum(np.rint(part * (255 / np.maximum(over, 1))), 255).astype(np.uint8)


def _picture(colours: Bytes, layout: TiffLayout) -> Image.Image:
    """Colours [height, width, n] as L, RGB or CMYK."""
    match layout.photometric:
        case tiff.WHITE_IS_ZERO | tiff.BLACK_IS_ZERO:
            return Image.fromarray(np.ascontiguousarray(colours[:, :, 0]))
        case tiff.PALETTE:
            return Image.fromarray(_colour_map(layout.palette)[colours[:, :, 0]])
        case tiff.YCBCR:
            if _is_jfif(layout):  # what JPEG files hold too
                size, stored = (layout.width, layout.height), np.ascontiguousarray(colours)
                return Image.frombytes("YCbCr", size, stored.data).convert("RGB")
            return Image.fromarray(_from_ycbcr(colours, layout))
        case tiff.CIELAB | tiff.ICCLAB:
            return _from_lab(colours, signed=layout.photometric == tiff.CIELAB)
    size = (layout.width, layout.height)
    return Image.frombytes(_MODES.get(layout.photometric, "RGB"), size, np.ascontiguousarray(colours).data)


def _colour_map(palette: tuple[int, ...]) -> Bytes:
    values = np.array(palette, dtype=np.uint32).reshape(3, -1).T
    return (values if values.max(initial=0) < 256 else values >> 8).astype(np.uint8)


def _is_jfif(layout: TiffLayout) -> bool:
    """Whether a YCbCr page has the coefficients of ITU-R BT.601 and all of the range."""
    usual = (*BT601, *FULL_RANGE)
    return bool(np.allclose((*layout.coefficients, *layout.reference), usual, atol=1e-3))


def _from_ycbcr(colours: Bytes, layout: TiffLayout) -> Bytes:
    red, green, blue = (np.float32(value) for value in layout.coefficients)
    low, high = layout.reference[0::2], layout.reference[1::2]
    out = np.empty_like(colours)
    step = max(1, _STRIP // colours.shape[1])
    for top in range(0, len(colours), step):
        part = colours[top : top + step].astype(np.float32)
        scale = [
            np.float32(span / (white - black))
            for span, black, white in zip((255, 127, 127), low, high, strict=True)
        ]
        y, cb, cr = ((part[:, :, index] - np.float32(low[index])) * scale[index] for index in range(3))
        r, b = y + cr * (2 - 2 * red), y + cb * (2 - 2 * blue)
        g = (y - red * r - blue * b) / green
        out[top : top + step] = np.rint(np.clip(np.stack([r, g, b], axis=2), 0, 255))
    return out


def _from_lab(colours: Bytes, *, signed: bool) -> Image.Image:
    """By LittleCMS. Pillow's raw mode LAB takes the two differences as signed."""
    height, width, _ = colours.shape
    stored = np.ascontiguousarray(colours)
    if not signed:
        stored = stored ^ np.array([0, 128, 128], dtype=np.uint8)
    return _lab_transform().apply(Image.frombytes("LAB", (width, height), stored.data))


@functools.cache
def _lab_transform() -> ImageCms.ImageCmsTransform:
    lab, srgb = (ImageCms.ImageCmsProfile(ImageCms.createProfile(name)) for name in ("LAB", "sRGB"))
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    # The table that LittleCMS makes for speed is off by a dozen levels in dark colours.
    return ImageCms.ImageCmsTransform(lab, srgb, "LAB", "RGB", intent, flags=ImageCms.Flags.NOOPTIMIZE)
