"""Bayer mosaics without a camera's wrapping: 16-bit PNG and TIFF, NPY, and bare samples.

Each reader takes ``decode``: without it nothing but the samples is judged, and all of them are 0.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np
from PIL import Image

from nonet.runtime.errors import InsufficientStorage, InvalidArgument, ServingError
from nonet.runtime.images import ImageLimits
from nonet.runtime.images.completeness import check_whole
from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import Refusal
from nonet.runtime.images.png import inspect_png
from nonet.runtime.images.tiff import FLOAT, SIGNED, UNDEFINED, UNSIGNED, read_layout
from nonet.runtime.images.tiff_layout import TiffLayout
from nonet.runtime.images.tiff_samples import sample_rows
from nonet.runtime.tensors import Array
from nonet.services.raw_image.capture import PATTERNS, Capture
from nonet.services.raw_image.limits import (
    RawLimits,
    corrupt,
    too_large,
    truncated,
    unsupported,
    wrong_form,
)
from nonet.services.raw_image.options import DevelopOptions
from nonet.services.raw_image.shot import read_shot

_PATTERN_SIZE, _PATTERN = 33421, 33422
_FORMS: Final = {UNSIGNED: "whole numbers", SIGNED: "signed numbers", FLOAT: "floating-point numbers"}
_NPY_HEADER_LIMIT: Final = 4096
_NPY_HEAD: Final = _NPY_HEADER_LIMIT + 64
_NPY_TYPES: Final[Mapping[str, type[np.generic]]] = {
    "u2": np.uint16,
    "i2": np.float32,
    "f2": np.float32,
    "f4": np.float32,
    "f8": np.float32,
}
_DEEPEST: Final = 65_535
_SMALLEST_RANGE: Final = 1e-6
_STRIP: Final = 1 << 22
_LARGEST_IMAGE: Final = 89_478_485  # what the picture decoders go up to


def read_png(data: bytes, options: DevelopOptions, limits: RawLimits, *, decode: bool = True) -> Capture:
    """A mosaic in a PNG of one channel and 16 bits."""
    with as_raw():
        header = inspect_png(data, _image_limits(limits))
    depth, colour = header.payload[24], header.payload[25]
    if colour != 0:
        raise wrong_form(
            "the PNG has several channels; a mosaic has one sample a pixel: grey with 16 bits",
            "RAW_NOT_A_MOSAIC",
        )
    limits.check_size(header.width, header.height)
    _check_depth(depth, header.width, header.height)
    pixels = _png_pixels(header) if decode else _blank(header.height, header.width, np.uint16)
    return _finish(pixels, options, "PNG mosaic", orientation=header.orientation)


def read_tiff(data: bytes, options: DevelopOptions, limits: RawLimits, *, decode: bool = True) -> Capture:
    """A mosaic in a TIFF of one channel, of 9 to 16 bits or floats; uncompressed, LZW, Deflate or PackBits.

    What the file says of its brightness (which end of the scale is white) and of its orientation is no matter
    of the samples: they are taken as they are stored, and the orientation turns the picture.
    """
    with as_raw():
        layout, tags, _ = read_layout(data, _image_limits(limits), more={_PATTERN_SIZE: 2, _PATTERN: 4})
    if layout.samples != 1:
        raise wrong_form(
            "the TIFF has several channels; a mosaic has one sample a pixel: grey with 16 bits",
            "RAW_NOT_A_MOSAIC",
        )
    height, width = layout.height, layout.width
    limits.check_size(width, height)
    kind = _tiff_type(layout)
    mosaic = _blank(height, width, kind)
    if decode:
        mosaic = np.empty((height, width), dtype=kind)
        with _decoding(), np.errstate(over="ignore"):
            for part in sample_rows(data, layout):
                rows, columns = part.samples.shape[:2]
                into = mosaic[part.top : part.top + rows, part.left : part.left + columns]
                into[:] = part.samples[:, :, 0]
        if kind is np.float32:
            _check_finite(mosaic)
    white = 1.0 if layout.sample_format == FLOAT else _deepest(layout.bits, layout.sample_format == SIGNED)
    capture = _finish(
        mosaic, _with_phase(options, tags), "TIFF mosaic", orientation=layout.orientation, white=white
    )
    return dataclasses.replace(capture, shot=read_shot(data))


def _with_phase(options: DevelopOptions, tags: Mapping[int, tuple[float, ...]]) -> DevelopOptions:
    """The phase that the file says where the caller says none (TIFF/EP, CFAPattern)."""
    places = tags.get(_PATTERN, ())
    letters = "".join("RGB"[int(place)] for place in places if place in (0, 1, 2))
    if options.cfa is None and tags.get(_PATTERN_SIZE) == (2, 2) and letters in PATTERNS:
        return dataclasses.replace(options, cfa=letters)
    return options


def _tiff_type(layout: TiffLayout) -> type[np.generic]:
    """What the samples of a TIFF become. Raises InvalidArgument for samples that are no mosaic's."""
    bits, form = layout.bits, layout.sample_format
    if form == FLOAT and bits in (16, 32, 64):
        return np.float32
    if form == SIGNED and bits == 16:
        return np.float32  # below black there are negative samples
    if form in (UNSIGNED, UNDEFINED) and 8 < bits <= 16:
        return np.uint16
    if form in (UNSIGNED, UNDEFINED) and bits <= 8:
        _check_depth(bits, layout.width, layout.height)
    raise wrong_form(
        f"the TIFF holds {_FORMS.get(form, 'samples of an unknown format')} of {bits} bits; a mosaic has "
        "whole numbers of 9 to 16 bits, signed ones of 16, or floating-point numbers",
        "RAW_BIT_DEPTH",
    )


def read_npy(data: bytes, options: DevelopOptions, limits: RawLimits, *, decode: bool = True) -> Capture:
    """A mosaic in NumPy's own format: shape (height, width), uint16 or a float type. Never unpickles."""
    stream = io.BytesIO(data[:_NPY_HEAD])
    try:
        version = np.lib.format.read_magic(stream)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
            (
                3,
                0,
            ): np.lib.format.read_array_header_2_0,  # differs in names of fields alone, which are refused
        }[version]
        shape, by_columns, kind = reader(stream, max_header_size=_NPY_HEADER_LIMIT)
    except Exception as error:  # the parser of headers may fail in many ways; all say the same of the file
        raise corrupt("the header of the NPY file cannot be read") from error
    code = kind.str[1:] if kind.fields is None and kind.subdtype is None else ""
    if code not in _NPY_TYPES:
        raise wrong_form(
            f"the NPY file holds {str(kind)[:40]}; a mosaic is uint16, int16, float16, float32 or float64",
            "RAW_BIT_DEPTH",
        )
    if len(shape) != 2:
        raise wrong_form(
            f"the NPY file has {len(shape)} dimensions; a mosaic has shape (height, width)",
            "RAW_NOT_A_MOSAIC",
        )
    height, width = shape
    limits.check_size(width, height)
    start = stream.tell()
    _check_length(len(data) - start, width, height, kind.itemsize, "NPY")
    white = {"u2": float(_DEEPEST), "i2": _deepest(16, True)}.get(code, 1.0)
    if not decode:
        return _finish(_blank(height, width, _NPY_TYPES[code]), options, "NPY mosaic", white=white)
    samples = np.frombuffer(data, dtype=kind, offset=start)
    mosaic = samples.reshape((width, height)).T if by_columns else samples.reshape((height, width))
    with np.errstate(over="ignore"):
        mosaic = np.ascontiguousarray(mosaic, dtype=_NPY_TYPES[code])
    if mosaic.dtype == np.float32:
        _check_finite(mosaic)
    return _finish(mosaic, options, "NPY mosaic", white=white)


def read_samples(data: bytes, options: DevelopOptions, limits: RawLimits, *, decode: bool = True) -> Capture:
    """Bare little-endian unsigned 16-bit samples, row after row; the caller says the size."""
    assert options.size is not None
    width, height = options.size
    limits.check_size(width, height)
    _check_length(len(data), width, height, 2, "bare")
    if not decode:
        return _finish(_blank(height, width, np.uint16), options, "bare samples")
    mosaic = np.frombuffer(data, dtype="<u2").reshape((height, width))
    return _finish(mosaic, options, "bare samples")


def check_levels(capture: Capture) -> Capture:
    """The capture, if its white level lies above its black levels. Raises InvalidArgument if not."""
    black, white = min(
        zip(capture.black, capture.white, strict=True), key=lambda levels: levels[1] - levels[0]
    )
    if not white - black >= _SMALLEST_RANGE:
        raise InvalidArgument(
            f"white_level must be above black_level; got white {white:g} and black {black:g}",
            param="white_level",
        )
    return capture


def _blank(height: int, width: int, kind: type[np.generic]) -> Array:
    """Samples that take no memory."""
    blank: Array = np.broadcast_to(kind(0), (height, width))
    return blank


def _deepest(bits: int, signed: bool) -> float:
    """The largest whole number of so many bits."""
    return float((1 << (bits - signed)) - 1)


def _finish(
    mosaic: Array,
    options: DevelopOptions,
    source: str,
    *,
    orientation: int = 1,
    white: float = float(_DEEPEST),
) -> Capture:
    """The capture of a mosaic; ``white`` is its level of saturation if the caller does not say one."""
    height, width = mosaic.shape
    if height % 2 or width % 2:
        raise wrong_form(
            f"{width} x {height} is not a Bayer mosaic: width and height must be even; expected "
            f"{(width + width % 2) * (height + height % 2) * mosaic.itemsize} bytes of samples, got "
            f"{width * height * mosaic.itemsize}",
            "RAW_ODD_SIZE",
        )
    if options.cfa is None:
        raise InvalidArgument(
            "cfa is missing; a mosaic does not say its Bayer phase: send RGGB, GRBG, GBRG or BGGR",
            param="cfa",
            code="RAW_CFA_MISSING",
        )
    whole = mosaic.dtype == np.uint16
    levels = options.white or (white,) * 4
    if whole and max(levels) > _DEEPEST:
        raise InvalidArgument(
            f"white_level must be at most {_DEEPEST} for 16-bit samples; got {max(levels):g}",
            param="white_level",
        )
    return check_levels(
        Capture(
            mosaic=mosaic,
            cfa=options.cfa,
            black=options.black or (0.0, 0.0, 0.0, 0.0),
            white=levels,
            orientation=orientation,
            source=source,
        )
    )


def _image_limits(limits: RawLimits) -> ImageLimits:
    return ImageLimits(
        encoded_bytes=limits.encoded_bytes, pixels=min(limits.pixels, _LARGEST_IMAGE), side=limits.side
    )


def _png_pixels(header: ImageHeader) -> Array:
    """The samples of a checked PNG of one channel, uint16 [height, width]."""
    with _decoding(), Image.open(io.BytesIO(header.payload), formats=[header.format]) as image:
        image.load()
        check_whole(image, header, lambda payload: image)
        if not image.mode.startswith("I;16") or image.size != (header.width, header.height):
            raise corrupt("its header and its pixels disagree")
        return np.asarray(image).astype(np.uint16, copy=False)


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Whatever a decoder makes of hostile bytes is a property of those bytes."""
    with as_raw():
        try:
            yield
        except (ServingError, Refusal):
            raise
        except MemoryError as error:
            raise InsufficientStorage("there is not enough memory for this capture now") from error
        except Exception as error:
            text = str(error).lower()
            if "truncated" in text or "not enough" in text:
                raise truncated("pixels are missing") from error
            raise corrupt("its pixels cannot be decoded") from error


def _check_depth(bits: int, width: int, height: int) -> None:
    if bits != 16:
        raise wrong_form(
            f"it has {bits} bits a sample; a mosaic has 16: expected {width * height * 2} bytes of samples "
            f"for {width} x {height} pixels, got {math.ceil(width * bits / 8) * height}",
            "RAW_BIT_DEPTH",
        )


def _check_length(got: int, width: int, height: int, itemsize: int, form: str) -> None:
    expected = width * height * itemsize
    if got != expected:
        raise wrong_form(
            f"{width} x {height} {form} samples of {8 * itemsize} bits take exactly {expected} bytes, "
            f"got {got}",
            "RAW_TRUNCATED" if got < expected else "RAW_LENGTH",
        )


def _check_finite(mosaic: Array) -> None:
    """In strips, so that the check takes little memory of its own."""
    step = max(1, _STRIP // max(mosaic.shape[1], 1))
    for top in range(0, mosaic.shape[0], step):
        if not np.isfinite(mosaic[top : top + step]).all():
            raise wrong_form(
                "the mosaic holds NaN or infinite values, or values too large for float32; every sample must "
                "be a finite number",
                "RAW_NOT_FINITE",
            )


@contextlib.contextmanager
def as_raw() -> Iterator[None]:
    """The picture decoders' refusals, said of the field ``raw``."""
    try:
        yield
    except Refusal as refusal:
        make = {"truncated": truncated, "corrupt": corrupt, "too_large": too_large}.get(refusal.kind)
        raise (make or unsupported)(refusal.what) from refusal
