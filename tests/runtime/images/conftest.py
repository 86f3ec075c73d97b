"""Encoded pictures for the tests of image decoding; small, and the same in every run."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

Encode = Callable[..., bytes]


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(width: int = 90, height: int = 70) -> Image.Image:
    """Smooth structures with some grain; no mirror or rotation of it looks the same."""
    random = np.random.default_rng(5)
    coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = random.integers(-10, 11, (height, width, 3), dtype=np.int16)
    return Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8))


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


@pytest.fixture(scope="session", name="picture")
def picture_fixture() -> Image.Image:
    return picture()


@pytest.fixture(scope="session", name="encode")
def encode_fixture() -> Encode:
    return encode


@pytest.fixture(scope="session", name="exif")
def exif_fixture() -> Callable[[int], bytes]:
    return exif


@pytest.fixture(scope="session")
def corpus() -> dict[str, bytes]:
    """One file of every accepted kind."""
    image = picture()
    frames = [image, image.transpose(Image.Transpose.ROTATE_180)]
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    wide = Image.fromarray(np.asarray(image)[:, :, 0].astype(np.uint16) * 257)
    animated: dict[str, Any] = {"save_all": True, "append_images": frames[1:]}
    return {
        "jpeg": encode(image, "JPEG", quality=85),
        "jpeg progressive": encode(image, "JPEG", quality=85, progressive=True),
        "jpeg metadata": encode(image, "JPEG", exif=exif(6), icc_profile=profile),
        "jpeg restarts": encode(image, "JPEG", restart_marker_blocks=4),
        "jpeg grey": encode(image.convert("L"), "JPEG"),
        "jpeg cmyk": encode(image.convert("CMYK"), "JPEG"),
        "png": encode(image, "PNG"),
        "png palette": encode(image.quantize(32), "PNG"),
        "png rgba": encode(image.convert("RGBA"), "PNG", exif=exif(6), icc_profile=profile),
        "png 1 bit": encode(image.convert("1"), "PNG"),
        "png 16 bit": encode(wide, "PNG"),
        "png animated": encode(image, "PNG", **animated),
        "webp": encode(image, "WEBP"),
        "webp lossless": encode(image, "WEBP", lossless=True, exif=exif(6)),
        "webp animated": encode(image, "WEBP", **animated),
        "gif": encode(image, "GIF"),
        "gif animated": encode(image, "GIF", **animated),
        "bmp": encode(image, "BMP"),
        "bmp palette": encode(image.quantize(32), "BMP"),
        "tiff": encode(image, "TIFF"),
        "tiff lzw": encode(image, "TIFF", compression="tiff_lzw"),
        "tiff deflate": encode(image, "TIFF", compression="tiff_adobe_deflate"),
    }


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photographs; skips where it is absent."""
    default = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    folder = Path(os.environ.get("NONET_DATA", default))
    if not folder.is_dir():
        pytest.skip("no real photographs here: set NONET_DATA to the data folder")
    return folder
