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

__all__ = [
    "ImportOptions",
    "Imported",
    "Importer",
    "NetworkOfAnotherTask",
    "NetworkRefused",
    "NetworkUnclear",
    "Publish",
    "opened",
]


@dataclasses.dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a person adds to what the file says of itself; None and "" mean "not said".

    Args:
        labels: text file of the classes' names, one a line.
        size: side of the square that goes in, in pixels.
        resize: pixels of the shorter side before the middle is cut (of both sides with ``fit`` stretch).
        fit: ``crop`` (shorter side, then the middle), ``stretch`` (both sides, any shape), ``window``
            (longer side, top left in the square) or ``letterbox`` (longer side, in the middle of the square).
        pad: level 0 to 255 of what ``window`` and ``letterbox`` leave of the square.
        interpolation: ``bilinear``, ``bicubic`` or ``lanczos``.
        mean, std: of red, green and blue, on the scale 0 to 1.
        channels: ``rgb`` or ``bgr``, the order in which the network takes them.
        layout: ``nchw`` or ``nhwc``.
        activation: ``logits``, ``softmax`` or ``sigmoid``: what the network gives, or needs.
        picture: an encoded picture that the reading is tried on.
        expect: what the picture shows: a class by name or index, or a file with what the task answers.
        calibration: CSV of the network's answers to data that it was not trained on beside the truth.
        features: names of the input's columns, or channels, in their order.
        family, licence, credit: for the manifest.
    """

    labels: Path | None = None
    size: int | None = None
    resize: int | None = None
    fit: str = ""
    pad: int | None = None
    interpolation: str = ""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    channels: str = ""
    layout: str = ""
    activation: str = ""
    picture: Path | None = None
    expect: str = ""
    calibration: Path | None = None
    features: tuple[str, ...] = ()
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


class NetworkOfAnotherTask(NetworkRefused):
    """The file, or what lies beside it, says that the network is not for this task."""


Publish = Callable[[str, Path, ImportOptions], Imported]
"""From the new model's name, the repository and the options to the published version.

Raises NetworkRefused, NetworkUnclear, and what publishing raises.
"""

Importer = Callable[[Path], Publish]
"""Opens a file for one task; nothing is published yet.

Raises NetworkOfAnotherTask, or NetworkRefused for what no task could read.
"""


def opened(file: Path, importers: Mapping[str, Importer]) -> Publish:
    """The file as a network of the one task that it is for.

    Args:
        file: of the network.
        importers: of the tasks that may be meant, by name.

    Raises NetworkUnclear if it may be for several of them, NetworkRefused if it is for none, or is broken.
    """
    found: dict[str, Publish] = {}
    reasons: dict[str, str] = {}
    for task, importer in importers.items():
        try:
            found[task] = importer(file)
        except NetworkOfAnotherTask as other:
            reasons[task] = other.message
    if not found:
        if len(reasons) == 1:
            raise NetworkRefused(next(iter(reasons.values())))
        why = "; ".join(f"not {task}, since {reason}" for task, reason in reasons.items())
        raise NetworkRefused(f"it is for no task that takes networks: {why}")
    if len(found) > 1:
        raise NetworkUnclear(f"it may be for {' or '.join(found)}. Which? Say --task", param="--task")
    return next(iter(found.values()))
