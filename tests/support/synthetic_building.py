"""WiFi scans of a simulated building of three floors.

``python tests/support/synthetic_building.py > docs/examples/building.csv`` writes the example of the docs.
"""

from __future__ import annotations

import sys

import numpy as np

FLOORS = ("B1", "F1", "F2")
ACCESS_POINTS = 8
SCANS = 40
WIDTH, HEIGHT, STOREY = 40.0, 25.0, 4.0
_AT_ONE_METRE, _DECAY, _CEILING, _NOISE, _WEAKEST = -35.0, 28.0, 16.0, 4.0, -90.0


def scans(seed: int = 0, per_floor: int = SCANS) -> list[tuple[str, str, dict[str, float]]]:
    """``(scan, floor, {bssid: dBm})`` in the order of a walk through the building.

    Log-distance path loss (exponent 2.8) with 16 dB for each ceiling and 4 dB of noise.
    """
    random = np.random.default_rng(seed)
    layout = np.random.default_rng(1)
    masts = [
        (f"02:00:00:00:{storey:02x}:{number:02x}", storey, layout.uniform((0, 0), (WIDTH, HEIGHT)))
        for storey in range(len(FLOORS))
        for number in range(ACCESS_POINTS)
    ]
    walked = []
    for storey, floor in enumerate(FLOORS):
        for number in range(per_floor):
            here = random.uniform((0, 0), (WIDTH, HEIGHT))
            heard = {}
            for bssid, level, there in masts:
                ceilings = abs(level - storey)
                distance = float(np.hypot(np.linalg.norm(here - there), STOREY * ceilings))
                power = _AT_ONE_METRE - _DECAY * np.log10(max(distance, 1.0)) - _CEILING * ceilings
                power += float(random.normal(0, _NOISE))
                if power >= _WEAKEST:
                    heard[bssid] = float(round(power))
            walked.append((f"{floor}-{number:03d}", floor, heard))
    return walked


def as_csv(walked: list[tuple[str, str, dict[str, float]]]) -> str:
    """A row for each reading; the floors are not in it."""
    lines = ["scan,bssid,rssi"]
    for scan, _, heard in walked:
        lines += [f"{scan},{bssid},{power:.0f}" for bssid, power in heard.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(as_csv(scans()))
