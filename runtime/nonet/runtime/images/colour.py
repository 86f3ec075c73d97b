"""Every pixel format to RGB of 8 bits, by fixed rules; those of TIFF are in :mod:`.tiff_colour`.

- Depth: of 16-bit channels the high byte counts. 1, 2 and 4 bits are spread over 0 to 255.
- Transparency is laid on white, as a page would show it.
- CMYK and YCCK files hold inverted values, as Adobe writes them; without a profile RGB = (255-C)(255-K)/255.
- An embedded ICC profile is converted to sRGB (perceptual intent), which is what screens show and networks
  were trained on. A profile that is damaged, oversized, does not fit the pixels or describes sRGB itself is
  ignored.
"""

from __future__ import annotations

import functools
import io
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from nonet.runtime.images.header import ImageHeader
from nonet.runtime.images.limits import unsupported

BACKGROUND: Final = (255, 255, 255)
_WIDE_GREY: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_ALPHA: Final = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_PROFILE_SPACES: Final = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}
_CACHED_TRANSFORMS: Final = 8


def to_rgb(image: Image.Image, header: ImageHeader) -> Image.Image:
    """``image`` (loaded, any accepted mode) as sRGB on a white background; same size.

    Raises Refusal for modes without a rule.
    """
    return on_white(_opaque(image), _alpha(image, header), header.profile)


def on_white(colours: Image.Image, alpha: Image.Image | None, profile: bytes) -> Image.Image:
    """Colours in mode L, RGB or CMYK and their opacity, in mode L or None, as sRGB on a white background."""
    colours = _to_srgb(colours, profile)
    if alpha is None:
        return colours
    canvas = Image.new("RGB", colours.size, BACKGROUND)
    canvas.paste(colours, mask=alpha)
    return canvas


def _opaque(image: Image.Image) -> Image.Image:
    """The colours without their transparency, in mode L, RGB or CMYK."""
    mode = image.mode
    if mode in ("L", "RGB", "CMYK"):
        return image
    if mode in _WIDE_GREY:
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if mode in ("1", "LA", "La"):
        return image.convert("LA").getchannel("L") if mode == "La" else image.convert("L")
    if mode in ("RGBA", "RGBX"):
        return Image.merge("RGB", image.split()[:3])
    if mode == "RGBa":
        return Image.merge("RGB", image.convert("RGBA").split()[:3])
    if mode in ("P", "PA"):
        return Image.merge("RGB", image.convert("RGBA").split()[:3])
    if mode == "YCbCr":
        return image.convert("RGB")
    raise unsupported(f"pixels of the kind {mode} are not decoded")


def _alpha(image: Image.Image, header: ImageHeader) -> Image.Image | None:
    """Opacity as mode L, or None if every pixel is opaque by construction."""
    alpha: Image.Image | None = None
    if header.colour_key is not None:
        pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
        same = pixels == np.array(header.colour_key if pixels.ndim == 3 else header.colour_key[0])
        clear = same.all(axis=2) if pixels.ndim == 3 else same
        alpha = Image.fromarray(np.where(clear, 0, 255).astype(np.uint8))
    elif image.mode in _ALPHA or "transparency" in image.info:
        alpha = image.convert("RGBA").getchannel("A")
        if header.format == "BMP" and alpha.getextrema() == (0, 0):
            alpha = None  # writers leave the fourth byte at 0, which would hide the whole picture
    if header.frame_box is not None and header.frame_box != (0, 0, *image.size):
        inside = alpha or Image.new("L", image.size, 255)
        alpha = Image.new("L", image.size, 0)
        alpha.paste(inside.crop(header.frame_box), header.frame_box)
    return alpha


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    transform = _transform(profile, image.mode) if profile else None
    if transform is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    return transform.apply(image)


@functools.lru_cache(maxsize=_CACHED_TRANSFORMS)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion of ``mode`` pixels to sRGB, or None where the profile is to be ignored."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        described = source.profile.profile_description or ""
        if source.profile.xcolor_space.strip() != _PROFILE_SPACES[mode] or "srgb" in described.lower():
            return None
        return ImageCms.ImageCmsTransform(source, _srgb(), mode, "RGB", ImageCms.Intent.PERCEPTUAL)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
