"""Looks drawn by rule for boxes without a picture, so that colour words can be learnt from text and boxes
alone.

A region is a mixture of named colours, other above than below. What an expression says of its region's colour
is put into the mixture, in the part where the thing is worn if it is a garment; others of the same class get
less of it. No photograph takes part.
"""

from __future__ import annotations

import re

import numpy as np

from nonet.research.grounding.scenes import Floats
from nonet.runtime.images.regions import COLOURS, LOOKS, PARTS

__all__ = ["made_up_looks"]

#: How often a colour is met, roughly: most of the world is black, grey, brown and white.
_USUAL = np.array([0.2, 0.13, 0.2, 0.05, 0.03, 0.03, 0.09, 0.08, 0.02, 0.02, 0.1, 0.08])
_BRIGHT = np.array([0.12, 0.92, 0.5, 0.4, 0.6, 0.75, 0.4, 0.4, 0.35, 0.7, 0.3, 0.7])
_VIVID = np.array([0.3, 0.05, 0.08, 0.8, 0.85, 0.75, 0.5, 0.6, 0.6, 0.45, 0.55, 0.35])
_ABOVE = re.compile(
    r"\b(shirt|top|jacket|sweater|coat|jersey|hoodie|vest|hat|cap|helmet|hair|tee|blouse|suit)\b"
)
_UNDER = re.compile(r"\b(pants|shorts|jeans|skirt|trousers|shoes|socks|bottoms|boots)\b")


def made_up_looks(
    count: int,
    target: int,
    rivals: np.ndarray,
    colours: tuple[str, ...],
    expression: str,
    draw: np.random.Generator,
) -> Floats:
    """Looks (count, LOOKS).

    Args:
        target: the region that is meant, or -1.
        rivals: (count,) bool, those of its class.
        colours: that the expression says of it.
    """
    mixtures = draw.dirichlet(_USUAL * 6, (count, len(PARTS)))
    own = draw.dirichlet(_USUAL * 4, (count, 1))
    mixtures = 0.55 * own + 0.45 * mixtures
    if target >= 0 and colours:
        weights = _where(expression)
        for colour in colours:
            index = COLOURS.index(colour)
            less = rivals & (draw.random(count) < 0.85)
            mixtures[less, :, index] *= draw.uniform(0, 0.5, (int(less.sum()), 1))
            strength = draw.uniform(0.2, 0.85) / len(colours) ** 0.5
            share = (strength * weights)[:, None]
            mixtures[target] = mixtures[target] * (1 - share) + share * np.eye(len(COLOURS))[index]
    mixtures /= mixtures.sum(2, keepdims=True)
    mixtures[:, 0] = 0.5 * (mixtures[:, 2] + mixtures[:, 3])  # the whole is its halves
    grain = draw.normal(size=(count, 4)) * [0.06, 0.1, 0.06, 0.03]
    whole = mixtures[:, 0]
    tones = np.stack(
        [
            whole @ _BRIGHT,
            1.2 * (whole * (1 - whole)).sum(1) ** 0.5 * 0.6,
            whole @ _VIVID,
            np.full(count, 0.08),
        ],
        axis=1,
    )
    looks = np.concatenate(
        [mixtures.reshape(count, len(PARTS) * len(COLOURS)), (tones + grain).clip(0, 1)], axis=1
    )
    assert looks.shape[1] == LOOKS
    made: Floats = looks.astype(np.float32)
    return made


def _where(expression: str) -> np.ndarray:
    """How much of a colour that is said belongs to each of :data:`PARTS`."""
    text = expression.lower()
    if _UNDER.search(text) and not _ABOVE.search(text):
        return np.array([0.5, 0.5, 0.15, 1.0])
    if _ABOVE.search(text):
        return np.array([0.5, 0.7, 1.0, 0.15])
    return np.array([1.0, 1.1, 1.0, 1.0])
