"""What the transmitters that a building has never heard say of whether a scan is of it.

The network judges which of its transmitters a scan holds together, and sees no others. A scan from across the
street can hold a few of them as they are heard in the building, beside many that the building has never
heard. Own scans hold few of those, even where transmitters have been replaced since the fit.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from nonet.runtime.tensors import Array

WEAKEST: Final = -90.0
"""Readings below this many dBm do not count: they are not used in a fit either."""

_OWN_SHARE: Final = 0.7  # of transmitters known to the building in a scan of it, when 30 % have been replaced
_FOREIGN_SHARE: Final = 0.3  # and in a scan of a neighbour that shares 30 %
_EACH: Final = math.log(_OWN_SHARE / _FOREIGN_SHARE)
_SUREST: Final = 1 - 1e-6  # a network's 1 is rounded: it must not outweigh all else


def beside_strangers(known: Array, acquainted: Array, strangers: Array) -> Array:
    """Probabilities (N) that scans are of the building, given those of the network and the company that the
    known transmitters are in.

    Counts of known and unknown transmitters as binomial draws with a share of 0.7 or 0.3 known: each unknown
    one more than there are known ones takes ln(7/3) from the log-odds. Their absence adds nothing: a caller
    may have left them out.

    Args:
        known: (N) of the network, 0 to 1.
        acquainted, strangers: (N) transmitters with a usable reading that the building knows, and does not.
    """
    against = _EACH * np.maximum(strangers - acquainted, 0)
    odds_against = np.exp(np.minimum(against, 700.0))
    believed = np.where(against > 0, np.minimum(known, _SUREST), known).astype(np.float64)
    left: Array = (believed / (believed + (1 - believed) * odds_against)).astype(np.float32)
    return left
