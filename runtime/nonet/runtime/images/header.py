"""What is known of an image before its pixels are decoded."""

from __future__ import annotations

import dataclasses

from nonet.runtime.images.tiff_layout import TiffLayout


@dataclasses.dataclass(frozen=True, slots=True)
class ImageHeader:
    """The result of inspecting a file's structure.

    Args:
        format: Pillow's name of the format, e.g. ``JPEG``.
        width, height: canvas in pixels, before ``orientation`` is applied.
        payload: the file reduced to what decoding its first frame needs: no metadata that a decoder could
            stumble over, nothing behind the picture.
        orientation: EXIF orientation that is still to be applied, 1 to 8.
        profile: the embedded ICC profile, empty if there is none.
        frames: number of frames or pages.
        colour_key: the one colour that is transparent (PNG), in 8 bits, or 16 for ``I;16``; None if none.
        frame_box: left, top, right, bottom of the first frame where it does not fill the canvas (GIF);
            what is outside is transparent.
        layout: where a TIFF keeps its samples and what they mean; None for the other formats.
        mcu: width and height in pixels of the last-coded unit of a JPEG of one sequential scan, else None.
    """

    format: str
    width: int
    height: int
    payload: bytes
    orientation: int = 1
    profile: bytes = b""
    frames: int = 1
    colour_key: tuple[int, ...] | None = None
    frame_box: tuple[int, int, int, int] | None = None
    mcu: tuple[int, int] | None = None
    layout: TiffLayout | None = None
