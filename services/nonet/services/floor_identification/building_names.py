"""Names of fitted buildings, of their networks and services, and of the files of a fit."""

from __future__ import annotations

import re

from nonet.runtime.errors import InvalidArgument, PermissionDenied

__all__ = [
    "FIT",
    "NETWORK_PREFIX",
    "PICTURE",
    "SCANS",
    "SERVICE_PREFIX",
    "TASK",
    "building_of",
    "network_of",
    "not_yours",
]

TASK = "floor-identification"
FIT = "floors.fit"
"""Kind of the job that fits a building."""

NETWORK_PREFIX = "floors_"
SERVICE_PREFIX = "identify."
SCANS = "scans.safetensors"
"""The scans of a fit, in its job's folder."""
PICTURE = "picture.png"
"""The picture of a fitted building, among the files of its version."""

_BUILDING = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


def network_of(building: str, param: str = "building") -> str:
    """Name of the network that a building becomes. Raises InvalidArgument for what cannot be a name."""
    if _BUILDING.fullmatch(building) is None:
        raise InvalidArgument(
            f"field '{param}' must be 1 to 64 letters, digits, '_', '.' or '-', beginning with a letter or a "
            f"digit, got {building[:80]!r}",
            param=param,
        )
    return NETWORK_PREFIX + building


def building_of(network: str) -> str:
    """The building of a network."""
    return network.removeprefix(NETWORK_PREFIX)


def not_yours(building: str) -> PermissionDenied:
    """What a tenant is told who wants to change the building of another."""
    return PermissionDenied(
        f"building '{building}' belongs to another tenant; fit yours under another name",
        param="building",
        code="BUILDING_NOT_YOURS",
    )
