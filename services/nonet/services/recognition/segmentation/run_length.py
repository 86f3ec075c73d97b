"""Masks as COCO's compressed run lengths: ``{"size": [height, width], "counts": text}``.

A mask is read column by column. The counts are the lengths of its runs, of unset and set pixels in turn,
unset first (so a mask whose first pixel is set begins with 0). From the fourth on, a count is written as its
difference to the one two before; each number is cut into groups of five bits, the lowest first, a sixth bit
says that more follow, and the group plus 48 is a character. Numbers are signed: bit 16 of the last group is
the sign.

Source: COCO's ``maskApi.c`` defines the format; what is here was written after its description.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["counts_of", "counts_text"]

_GROUPS: Final = 13
"""Groups of five bits that hold any 64-bit number."""

Counts = npt.NDArray[np.int64]


def counts_of(strips: Iterable[npt.NDArray[np.bool_]]) -> Counts:
    """The run lengths of a mask whose pixels come in strips, each bool [n], one after the other."""
    ends, last, place = [], False, 0
    for strip in strips:
        if len(strip):
            changed = np.flatnonzero(np.diff(strip, prepend=last)) + place
            ends.append(changed)
            last, place = bool(strip[-1]), place + len(strip)
    edges = np.concatenate([np.zeros(1, np.int64), *ends, np.array([place])])
    return np.diff(edges).astype(np.int64)


def counts_text(counts: Counts) -> str:
    """Run lengths in COCO's compressed form."""
    rest = counts.astype(np.int64)
    rest[3:] -= counts[1:-2]
    groups = np.zeros((len(rest), _GROUPS), dtype=np.uint8)
    kept = np.zeros((len(rest), _GROUPS), dtype=np.bool_)
    more = np.ones(len(rest), dtype=np.bool_)
    for place in range(_GROUPS):
        if not more.any():
            break
        group = (rest & 31).astype(np.uint8)
        rest >>= 5
        kept[:, place] = more
        # The rest is nothing but the sign, and the group shows which.
        done = np.where(group & 16, rest == -1, rest == 0)
        groups[:, place] = group + np.where(done, 0, 32).astype(np.uint8) + 48
        more = more & ~done
    return groups[kept].tobytes().decode("ascii")
