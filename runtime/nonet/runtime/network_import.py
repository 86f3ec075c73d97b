"""What a foreign network's import is told, what it says when it has published, and how it asks.

A task that can serve networks made elsewhere names the function that imports them
(:attr:`nonet.runtime.task.Task.importer`); a command line or another face calls it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nonet.runtime.errors import InvalidArgument

__all__ = ["ImportOptions", "Imported", "Importer", "NetworkRefused", "NetworkUnclear"]


@dataclasses.dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a person adds to what the file says of itself; None and "" mean "not said".

    Args:
        labels: text file of the classes' names, one a line.
        size: side of the square that goes in, in pixels.
        resize: pixels of the shorter side before the middle is cut (of both sides with ``fit`` stretch).
        fit: ``crop`` (shorter side, then the middle) or ``stretch`` (both sides, whatever the shape).
        interpolation: ``bilinear``, ``bicubic`` or ``lanczos``.
        mean, std: of red, green and blue, on the scale 0 to 1.
        channels: ``rgb`` or ``bgr``, the order in which the network takes them.
        layout: ``nchw`` or ``nhwc``.
        activation: ``logits`` or ``softmax``, what the network gives.
        picture: an encoded picture that the reading is tried on.
        expect: class that the picture shows, by name or index.
        family, licence, credit: for the manifest.
    """

    labels: Path | None = None
    size: int | None = None
    resize: int | None = None
    fit: str = ""
    interpolation: str = ""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: str = ""
    layout: str = ""
    activation: str = ""
    picture: Path | None = None
    expect: str = ""
    family: str = ""
    licence: str = ""
    credit: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """A published version: how its file was read, and lines for the person who imported it."""

    model: str
    version: str
    facts: Mapping[str, Any]
    notes: tuple[str, ...]


class NetworkRefused(InvalidArgument):
    """The file cannot become a network of the task, whatever is said beside it."""

    default_code = "NETWORK_REFUSED"


class NetworkUnclear(InvalidArgument):
    """The file does not say enough, or an option contradicts it; the message names the options that help."""

    default_code = "NETWORK_UNCLEAR"


Importer = Callable[[Path, str, Path, ImportOptions], Imported]
"""From a file, the new model's name, the repository and the options to the published version.

Raises NetworkRefused, NetworkUnclear, and what publishing raises.
"""
