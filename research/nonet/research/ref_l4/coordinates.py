"""Coordinates in which models write boxes, to corners in pixels of the original picture and back.

A convention is a reference (what a whole side is), an order of the four numbers, and what the reference is a
measure of: the picture, or the square that the picture was padded to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from nonet.research.ref_l4.overlaps import Box
from nonet.runtime.errors import InvalidArgument

__all__ = ["CONVENTIONS", "Convention", "clipped", "from_pixels", "patch_box", "to_pixels"]

Order = Literal["xyxy", "xywh", "cxcywh", "yxyx"]


@dataclass(frozen=True)
class Convention:
    """How four numbers are a box.

    Args:
        side: how long a whole side is in these numbers; 0 for pixels.
        order: of the numbers.
        padded: ``""`` for sides of the picture; ``corner`` or ``middle`` for the square of the longer side in
            which the picture lies top left, or in the middle.
        offset: added to each number before it is scaled, e.g. half a bin.
        resized: whether pixels are those of the picture as the model saw it.
    """

    side: float = 0.0
    order: Order = "xyxy"
    padded: Literal["", "corner", "middle"] = ""
    offset: float = 0.0
    resized: bool = False


CONVENTIONS: Final = {
    "pixel": Convention(),
    "pixel_resized": Convention(resized=True),
    "pixel_xywh": Convention(order="xywh"),
    "unit": Convention(1.0),
    "unit_xywh": Convention(1.0, order="xywh"),
    "unit_cxcywh": Convention(1.0, order="cxcywh"),
    "unit_padded": Convention(1.0, padded="corner"),
    "unit_padded_middle": Convention(1.0, padded="middle"),
    "bins_100": Convention(100.0),
    "bins_999": Convention(999.0),
    "bins_1000": Convention(1000.0),
    "bins_1000_middle": Convention(1000.0, offset=0.5),
    "bins_1000_yxyx": Convention(1000.0, order="yxyx"),
    "bins_1024_yxyx": Convention(1024.0, order="yxyx"),
}


def to_pixels(
    numbers: Sequence[float],
    convention: Convention,
    width: float,
    height: float,
    resized: tuple[float, float] | None = None,
) -> Box:
    """Corners x1, y1, x2, y2 in pixels of a picture of width x height; not clipped, not sorted.

    Args:
        numbers: four, as the model wrote them.
        convention: what they mean.
        width, height: of the original picture.
        resized: of the picture as the model saw it, for pixels of that.

    Raises InvalidArgument for pixels of a resized picture whose size is not given.
    """
    left, top, across, down = _reference(convention, width, height, resized)
    x1, y1, x2, y2 = _ordered([each + convention.offset for each in numbers], convention.order)
    return x1 * across - left, y1 * down - top, x2 * across - left, y2 * down - top


def from_pixels(
    box: Box,
    convention: Convention,
    width: float,
    height: float,
    resized: tuple[float, float] | None = None,
) -> list[float]:
    """The numbers that :func:`to_pixels` makes this box of."""
    left, top, across, down = _reference(convention, width, height, resized)
    x1, y1, x2, y2 = (
        (box[0] + left) / across,
        (box[1] + top) / down,
        (box[2] + left) / across,
        (box[3] + top) / down,
    )
    numbers = {
        "xyxy": [x1, y1, x2, y2],
        "yxyx": [y1, x1, y2, x2],
        "xywh": [x1, y1, x2 - x1, y2 - y1],
        "cxcywh": [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1],
    }[convention.order]
    return [each - convention.offset for each in numbers]


def patch_box(first: int, last: int, width: float, height: float, grid: int = 32) -> Box:
    """From the numbers of the top left and the bottom right cell of a grid, in rows, to pixels."""
    (top, left), (bottom, right) = divmod(first, grid), divmod(last, grid)
    across, down = width / grid, height / grid
    return left * across, top * down, (right + 1) * across, (bottom + 1) * down


def clipped(box: Box, width: float, height: float) -> Box:
    """The corners moved into the picture."""
    x1, y1, x2, y2 = box
    return (
        min(max(x1, 0.0), width),
        min(max(y1, 0.0), height),
        min(max(x2, 0.0), width),
        min(max(y2, 0.0), height),
    )


def _reference(
    convention: Convention, width: float, height: float, resized: tuple[float, float] | None
) -> tuple[float, float, float, float]:
    """What is taken off x and y, and pixels for each unit across and down."""
    if convention.resized:
        if resized is None:
            raise InvalidArgument(
                "pixels of a resized picture need the size that the model saw", param="resized"
            )
        return 0.0, 0.0, width / resized[0], height / resized[1]
    if not convention.side:
        return 0.0, 0.0, 1.0, 1.0
    if not convention.padded:
        return 0.0, 0.0, width / convention.side, height / convention.side
    side = max(width, height)
    middle = convention.padded == "middle"
    left, top = ((side - width) / 2, (side - height) / 2) if middle else (0.0, 0.0)
    return left, top, side / convention.side, side / convention.side


def _ordered(numbers: Sequence[float], order: Order) -> tuple[float, float, float, float]:
    a, b, c, d = numbers
    if order == "xywh":
        return a, b, a + c, b + d
    if order == "cxcywh":
        return a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if order == "yxyx":
        return b, a, d, c
    return a, b, c, d
