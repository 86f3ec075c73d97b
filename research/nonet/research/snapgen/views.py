"""Other views of the training pictures: moved by a few pixels, mirrored where the name allows it.

A caption is as true of a drawing a little further left, and of its mirror image unless it speaks of sides
or of the hands of a clock. Views are made of pixels and encoded like the pictures themselves.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

#: Pixels that a view is moved by at most, of a picture of 64: half a cell of the latents.
REACH = 4 / 64
_ONE_SIDED = re.compile(
    r"\b(left|right|clockwise|o.clock|clock|watch|letters?|symbols?|arrows?|sign|keyboard|calendar|page|music\w*)\b"
)


def may_be_mirrored(name: str) -> bool:
    """Whether the mirror image of a drawing of this name still shows what the name says."""
    return _ONE_SIDED.search(name.lower()) is None


def view_of(picture: Tensor, name: str, generator: torch.Generator) -> Tensor:
    """A view of a picture (3, side, side): what is moved in from outside repeats its border."""
    side = picture.shape[-1]
    most = max(1, round(side * REACH))
    across, down = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    mirrored = bool(torch.rand((), generator=generator) < 0.5) and may_be_mirrored(name)
    source = picture.flip(-1) if mirrored else picture
    place = torch.arange(side)
    columns, rows = (place - across).clamp(0, side - 1), (place - down).clamp(0, side - 1)
    return source[:, rows][:, :, columns]
