"""How loud transmitters are in a group of scans: what tells a slab from a line drawn across a floor.

A slab costs a signal 15 dB and more, so a transmitter is loud on its own floor and clearly weaker on others.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nonet.runtime.scans import Scans

SLAB = 15.0
"""dB up to which a difference in loudness counts."""

LOUDEST = 3
"""Readings whose mean is a transmitter's loudness in a group."""

_AUDIBLE = -85.0  # dBm; transmitters that are never louder say little of floors
_UNHEARD = -100.0


def loudness(readings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean (m) of the three loudest readings in dBm of each transmitter, for readings (n, m)."""
    most = min(LOUDEST, len(readings))
    return np.partition(readings, len(readings) - most, axis=0)[-most:].mean(0)


def audible_readings(scans: Scans) -> NDArray[np.float32]:
    """Readings (n, m) in dBm, -100 where not heard, of the transmitters whose loudness in all scans is
    -85 dBm or more (of all, if that of none is)."""
    columns = np.unique(scans.transmitter)
    dense = np.full((len(scans), len(columns)), _UNHEARD, np.float32)
    scan = np.repeat(np.arange(len(scans)), np.diff(scans.offsets))
    dense[scan, np.searchsorted(columns, scans.transmitter)] = scans.rssi
    audible = loudness(dense) >= _AUDIBLE
    return dense[:, audible] if audible.any() else dense
