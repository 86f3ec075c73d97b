"""Bayer mosaics without a camera's wrapping: 16-bit PNG and TIFF, NPY, and bare samples.

Each reader takes ``decode``: without it nothing but the samples is judged, and all of them are 0.
"""

from __future__ import annotations

import contextlib
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
from nonet.runtime.images.png import inspect_png
from nonet.runtime.images.tags import read_first_directory
from nonet.runtime.images.tiff import inspect_tiff
from nonet.runtime.tensors import Array
from nonet.services.raw_image.capture import Capture
from nonet.services.raw_image.limits import PARAM, RawLimits, corrupt, truncated, wrong_form
from nonet.services.raw_image.options import DevelopOptions

_BITS, _SAMPLES = 258, 277
_NPY_HEADER_LIMIT: Final = 4096
_NPY_HEAD: Final = _NPY_HEADER_LIMIT + 64
_NPY_TYPES: Final[Mapping[str, type[np.generic]]] = {
    "u2": np.uint16,
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
    with _as_raw():
        header = inspect_png(data, _image_limits(limits))
    depth, colour = header.payload[24], header.payload[25]
    if colour != 0:
        raise wrong_form(
            "the PNG has several channels; a mosaic has one sample a pixel: grey with 16 bits",
            "RAW_NOT_A_MOSAIC",
        )
    limits.check_size(header.width, header.height)
    _check_depth(depth, header.width, header.height)
    pixels = _pixels(header) if decode else _blank(header.height, header.width, np.uint16)
    return _finish(pixels, options, "PNG mosaic")


def read_tiff(data: bytes, options: DevelopOptions, limits: RawLimits, *, decode: bool = True) -> Capture:
    """A mosaic in a TIFF of one channel and 16 bits, uncompressed or in LZW, Deflate or PackBits."""
    with _as_raw():
        header = inspect_tiff(data, _image_limits(limits))
        directory = read_first_directory(data, {_BITS: 8, _SAMPLES: 1})
    tags = directory[0] if directory else {}
    if tags.get(_SAMPLES, (1,)) != (1,):
        raise wrong_form(
            "the TIFF has several channels; a mosaic has one sample a pixel: grey with 16 bits",
            "RAW_NOT_A_MOSAIC",
        )
    limits.check_size(header.width, header.height)
    _check_depth(tags.get(_BITS, (1,))[0], header.width, header.height)
    pixels = _pixels(header) if decode else _blank(header.height, header.width, np.uint16)
    return _finish(pixels, options, "TIFF mosaic")


def read_npy(data: bytes, options: DevelopOptions, limits: RawLimits, *, decode: bool = True) -> Capture:
    """A mosaic in NumPy's own format: shape (height, width), uint16 or a float type. Never unpickles."""
    stream = io.BytesIO(data[:_NPY_HEAD])
    try:
        version = np.lib.format.read_magic(stream)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, by_columns, kind = reader(stream, max_header_size=_NPY_HEADER_LIMIT)
    except Exception as error:  # the parser of headers may fail in many ways; all say the same of the file
        raise corrupt("the header of the NPY file cannot be read") from error
    code = kind.str[1:] if kind.fields is None and kind.subdtype is None else ""
    if code not in _NPY_TYPES:
        raise wrong_form(
            f"the NPY file holds {str(kind)[:40]}; a mosaic is uint16, float16, float32 or float64",
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
    if not decode:
        return _finish(_blank(height, width, _NPY_TYPES[code]), options, "NPY mosaic")
    samples = np.frombuffer(data, dtype=kind, offset=start)
    mosaic = samples.reshape((width, height)).T if by_columns else samples.reshape((height, width))
    with np.errstate(over="ignore"):
        mosaic = np.ascontiguousarray(mosaic, dtype=_NPY_TYPES[code])
    if mosaic.dtype == np.float32:
        _check_finite(mosaic)
    return _finish(mosaic, options, "NPY mosaic")


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
    black = max(capture.black)
    if not capture.white - black >= _SMALLEST_RANGE:
        raise InvalidArgument(
            f"white_level must be above black_level; got white {capture.white:g} and black {black:g}",
            param="white_level",
        )
    return capture


def _blank(height: int, width: int, kind: type[np.generic]) -> Array:
    """Samples that take no memory."""
    blank: Array = np.broadcast_to(kind(0), (height, width))
    return blank


def _finish(mosaic: Array, options: DevelopOptions, source: str) -> Capture:
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
    white = options.white if options.white is not None else float(_DEEPEST) if whole else 1.0
    if whole and white > _DEEPEST:
        raise InvalidArgument(
            f"white_level must be at most {_DEEPEST} for 16-bit samples; got {white:g}", param="white_level"
        )
    return check_levels(
        Capture(
            mosaic=mosaic,
            cfa=options.cfa,
            black=options.black or (0.0, 0.0, 0.0, 0.0),
            white=white,
            source=source,
        )
    )


def _image_limits(limits: RawLimits) -> ImageLimits:
    return ImageLimits(
        encoded_bytes=limits.encoded_bytes, pixels=min(limits.pixels, _LARGEST_IMAGE), side=limits.side
    )


def _pixels(header: ImageHeader) -> Array:
    """The samples of a checked picture of one channel, uint16 [height, width]."""
    with _as_raw():
        try:
            with Image.open(io.BytesIO(header.payload), formats=[header.format]) as image:
                image.load()
                check_whole(image, header, lambda payload: image)
                if not image.mode.startswith("I;16"):
                    raise corrupt("its header and its pixels disagree")
                mosaic = np.asarray(image).astype(np.uint16, copy=False)
        except ServingError:
            raise
        except MemoryError as error:
            raise InsufficientStorage("there is not enough memory for this capture now") from error
        except Exception as error:  # whatever a decoder makes of hostile bytes is a property of those bytes
            text = str(error).lower()
            if "truncated" in text or "not enough" in text:
                raise truncated("pixels are missing") from error
            raise corrupt("its pixels cannot be decoded") from error
    if mosaic.shape != (header.height, header.width):
        raise corrupt("its size is stated twice and differently")
    return mosaic


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
def _as_raw() -> Iterator[None]:
    """The picture decoders speak of an image; here the field is called ``raw``."""
    try:
        yield
    except ServingError as error:
        if error.param == PARAM:
            raise
        message = f"raw: {error.message.removeprefix('image: ')}"
        raise type(error)(message, param=PARAM, code=error.code, retry_after=error.retry_after) from error
