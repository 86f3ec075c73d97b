"""How a foreign detector is read: options before the file, the file before what its exporter usually does."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import Preprocessing
from nonet.runtime.network_import import ImportOptions, NetworkUnclear
from nonet.runtime.repository.labels import read_labels
from nonet.runtime.tensors import DataType, TensorSpec
from nonet.services.recognition.detection.importing.decoding import Decode
from nonet.services.recognition.detection.importing.layouts import Layout
from nonet.services.recognition.importing import graph_ends
from nonet.services.recognition.importing.facts import Facts, side

_RESIZE_TYPES: Final = {
    "letterbox": "fit_to_window_letterbox",
    "stretch": "standard",
    "window": "fit_to_window",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """All that must be known of a detector.

    Args:
        facts: with nothing open that a picture's preparation needs.
        preprocessing: the same for the manifest.
        labels: a name for each class that is served.
        named: whether the names are the network's own, not indices.
        decodes: the ways in which its outputs may be meant, more than one if answers decide.
    """

    facts: Facts
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    named: bool
    decodes: Sequence[tuple[str, Decode]]


def complete(image: TensorSpec, layout: Layout, said: Facts, options: ImportOptions) -> Reading:
    """The one reading of a detector whose input is ``image``.

    Raises NetworkUnclear with the options that answer what is open, or contradict what is known.
    """
    axes = _axes(image, said, options)
    size = graph_ends.square_side(image, axes)
    if options.size is not None:
        side(options.size, "--size")
        if size not in (None, options.size):
            raise NetworkUnclear(f"the graph takes {size} px, not {options.size}: leave --size out")
    if options.resize is not None:
        raise NetworkUnclear("--resize is not for detectors, which are shown whole pictures: say --size")
    if options.fit == "crop":
        raise NetworkUnclear("--fit crop is not for detectors: stretch, window and letterbox are")
    given = Facts(
        size=options.size or size,
        fit=options.fit,
        pad=options.pad,
        interpolation=options.interpolation,
        mean=options.mean,
        std=options.std,
        channels=options.channels,
        layout=axes,
        activation=options.activation,
    )
    facts = given.over(said).over(layout.usual)
    if image.datatype is DataType.UINT8:  # levels themselves: the graph normalises
        facts = dataclasses.replace(facts, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    open_facts = _open(facts, layout, options)
    if open_facts:
        raise NetworkUnclear(
            f"it looks like a detector of {facts.system}; neither it nor a file beside it says all that it "
            f"needs. What is it? Say {', '.join(open_facts)}"
        )
    labels, named = _labels(facts, layout, options)
    decodes = [(name, each) for name, each in layout.decodes.items() if facts.activation in ("", name)]
    return Reading(facts, _preprocessing(facts), labels, named, decodes or list(layout.decodes.items()))


def _axes(image: TensorSpec, said: Facts, options: ImportOptions) -> str:
    found = graph_ends.layout_of(image)
    if options.layout and found and options.layout != found:
        raise NetworkUnclear(
            f"its input {list(image.shape)} is {found}, not {options.layout}: leave --layout out"
        )
    return found or options.layout or said.layout or "nchw"


def _open(facts: Facts, layout: Layout, options: ImportOptions) -> list[str]:
    """The options that answer what is open."""
    needed = []
    if facts.size is None:
        needed.append("--size (side of the square that goes in, in pixels)")
    if not facts.fit:
        needed.append("--fit (stretch, window: whole and top left, or letterbox: whole and in the middle)")
    if facts.fit in ("window", "letterbox") and facts.pad is None:
        needed.append("--pad (level of the rest of the square, 0 to 255)")
    if facts.mean is None or facts.std is None:
        needed.append("--mean and --std (of red, green and blue, on the scale 0 to 1)")
    if facts.channels not in ("rgb", "bgr"):
        needed.append("--channels (rgb or bgr)")
    if not facts.interpolation:
        needed.append("--interpolation (bilinear, bicubic or lanczos)")
    if "softmax" in layout.decodes and facts.activation not in layout.decodes:
        needed.append("--activation (softmax, the last of its columns for no object; or sigmoid)")
    if layout.columns is None and not facts.labels and options.labels is None:
        needed.append("--labels (names of its classes, by index)")
    return needed


def _labels(facts: Facts, layout: Layout, options: ImportOptions) -> tuple[tuple[str, ...], bool]:
    """A name for each class, and whether they are more than indices."""
    labels, where = facts.labels, " and ".join(facts.read_from)
    if options.labels is not None:
        try:
            labels, where = read_labels(options.labels), "--labels"
        except ModelRefused as refused:
            raise NetworkUnclear(refused.reason, param="--labels") from None
    if layout.columns is None:
        if not labels:
            raise NetworkUnclear(f"{where} names no class", param="--labels")
        return labels, True
    nothing = (1,) if facts.activation == "softmax" else layout.nothing
    if not labels:
        return tuple(str(index) for index in range(layout.columns - nothing[0])), False
    allowed = [layout.columns - each for each in nothing]
    if len(labels) not in allowed:
        counts = " or ".join(str(each) for each in allowed)
        raise NetworkUnclear(
            f"there are {len(labels)} names ({where}) for {counts} classes. Which are they? Say --labels"
        )
    return labels, True


def _preprocessing(facts: Facts) -> Preprocessing:
    assert facts.size is not None
    assert facts.mean is not None
    assert facts.std is not None
    try:
        return Preprocessing(
            resize=facts.size,
            crop=facts.size,
            interpolation=facts.interpolation,
            mean=facts.mean,
            std=facts.std,
            resize_type=_RESIZE_TYPES[facts.fit],
            pad_value=facts.pad or 0,
        )
    except (ValueError, KeyError) as error:
        raise NetworkUnclear(str(error)) from None
