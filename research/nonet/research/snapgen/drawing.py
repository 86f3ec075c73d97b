"""Drawings as pixels: cut to what is drawn, brought to one size, and laid on a coloured ground."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]

#: Of a canvas of 8 parts a drawing's longer side fills 7.
FILL = 7 / 8
#: An SVG is drawn at this side first, then reduced, so that all drawings come to the same size.
DRAWN_SIDE = 160
#: Grounds that captions name, as sRGB. White is the ground of captions that name none.
GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "black": (16, 16, 20),
    "grey": (150, 152, 158),
    "red": (226, 74, 68),
    "orange": (246, 160, 70),
    "yellow": (252, 220, 98),
    "green": (112, 190, 106),
    "blue": (84, 142, 232),
    "purple": (160, 108, 214),
    "pink": (248, 164, 200),
    "brown": (150, 106, 74),
}


def draw(picture: str | bytes, side: int) -> Pixels | None:
    """A drawing (side, side, 4), RGBA, its longer side 7/8 of `side`, centred; `None` if nothing is drawn.

    `picture` is an SVG document, or the bytes of an image file with transparency.
    """
    if isinstance(picture, str):
        from resvg_py import svg_to_bytes

        picture = svg_to_bytes(
            svg_string=picture, skip_system_fonts=True, width=DRAWN_SIDE, height=DRAWN_SIDE
        )
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGBA")
    box = image.getchannel("A").point(lambda value: 255 if value > 24 else 0).getbbox()
    if box is None:
        return None
    width, height = box[2] - box[0], box[3] - box[1]
    scale = FILL * side / max(width, height)
    size_to = (max(1, round(width * scale)), max(1, round(height * scale)))
    # "RGBa" holds colours multiplied by alpha: what is transparent then adds no colour of its own at edges.
    small = image.crop(box).convert("RGBa").resize(size_to, Image.Resampling.BOX, reducing_gap=None)
    canvas = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    canvas.paste(small.convert("RGBA"), ((side - size_to[0]) // 2, (side - size_to[1]) // 2))
    return np.asarray(canvas)


def lay_on(drawing: Pixels, ground: tuple[int, int, int]) -> Pixels:
    """A drawing (side, side, 4) on a ground of one colour: (side, side, 3)."""
    alpha = drawing[..., 3:].astype(np.float32) / 255
    laid = drawing[..., :3] * alpha + np.asarray(ground, np.float32) * (1 - alpha)
    return np.rint(laid).astype(np.uint8)
