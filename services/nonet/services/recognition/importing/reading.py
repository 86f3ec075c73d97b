"""How a picture is prepared for a foreign classifier: what is said of it, what is open, what is usual."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nonet.runtime.network_import import ImportOptions, NetworkRefused, NetworkUnclear
from nonet.runtime.tensors import DataType
from nonet.services.recognition.importing import graph_ends
from nonet.services.recognition.importing.exporters import read_facts
from nonet.services.recognition.importing.facts import Facts, side
from nonet.services.recognition.importing.graph_ends import Ends

_NORMALISATIONS: Final = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
)


def facts_of(file: Path, ends: Ends, options: ImportOptions) -> Facts:
    """The facts of options, file and files beside it, in agreement with the graph's shapes."""
    if options.fit not in ("", "crop", "stretch"):
        raise NetworkUnclear(f"--fit {options.fit} is not for classifiers: crop and stretch are")
    if options.activation == "sigmoid":
        raise NetworkUnclear("--activation sigmoid is not for classifiers: logits and softmax are")
    layout = graph_ends.layout_of(ends.image)
    if options.layout and layout and options.layout != layout:
        raise NetworkUnclear(
            f"its input {list(ends.image.shape)} is {layout}, not {options.layout}: leave --layout out"
        )
    layout = layout or options.layout
    graph_size = None
    if layout:
        graph_size = graph_ends.square_side(ends.image, layout)
    read = read_facts(file, ends.metadata, graph_size)
    if graph_size is None and not layout and read.layout:
        layout = read.layout
        graph_size = graph_ends.square_side(ends.image, layout)
    if options.size is not None:
        side(options.size, "--size")
    if graph_size is not None and options.size not in (None, graph_size):
        raise NetworkUnclear(f"the graph takes {graph_size} px, not {options.size}: leave --size out")
    size = options.size or graph_size
    if size is not None and read.size not in (None, size):
        if options.resize is None:
            raise NetworkUnclear(
                f"{read.read_from[0]} says {read.size} px, the graph takes {size}. To how many pixels is the "
                f"shorter side resized before the middle {size} are cut? Say --resize"
            )
        read = dataclasses.replace(read, size=None, resize=None)
    given = Facts(
        size=size,
        resize=options.resize,
        fit=options.fit,
        interpolation=options.interpolation,
        mean=options.mean,
        std=options.std,
        channels=options.channels,
        layout=layout,
        activation=options.activation,
    )
    facts = given.over(read)
    if facts.fit not in ("", "crop", "stretch"):
        raise NetworkRefused(f"{facts.read_from[0]}: a picture with a border ({facts.fit}) is not served")
    if facts.fit == "stretch" and facts.resize is None:
        facts = dataclasses.replace(facts, resize=facts.size)
    if ends.image.datatype is DataType.UINT8:  # levels themselves: the graph normalises
        facts = dataclasses.replace(facts, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    if facts.mean is not None and not facts.channels:
        facts = dataclasses.replace(facts, channels="rgb")  # mean and std are stated of red, green and blue
    return facts


def candidates(facts: Facts) -> Iterator[Facts]:
    """The usual values of what is open."""
    assert facts.size is not None
    normalisations = [(facts.mean, facts.std)] if facts.mean and facts.std else list(_NORMALISATIONS)
    channels = [facts.channels] if facts.channels in ("rgb", "bgr") else ["rgb", "bgr"]
    fits: list[tuple[str, int]]
    if facts.resize is not None:
        fits = [(facts.fit or "crop", facts.resize)]
    elif facts.fit == "crop":
        fits = [("crop", facts.size * 8 // 7)]
    else:
        fits = [("crop", facts.size * 8 // 7), ("stretch", facts.size)]
    for (mean, std), order, (fit, resize) in itertools.product(normalisations, channels, fits):
        yield dataclasses.replace(
            facts,
            mean=mean,
            std=std,
            channels=order,
            fit=fit,
            resize=resize,
            interpolation=facts.interpolation or "bilinear",
        )


def question_of(facts: Facts) -> str:
    """What is open, as one question that names the options; "" if nothing is."""
    options = []
    if not facts.layout:
        options.append("--layout (nchw or nhwc)")
    if facts.size is None:
        options.append("--size (side of the square that goes in, in pixels)")
    if facts.mean is None or facts.std is None:
        options.append("--mean and --std (of red, green and blue, on the scale 0 to 1)")
    if facts.channels == "unknown" or (facts.mean is not None and not facts.channels):
        options.append("--channels (rgb or bgr)")
    if facts.resize is None:
        options.append("--resize (pixels of the shorter side before the middle is cut) or --fit stretch")
    if not facts.interpolation:
        options.append("--interpolation (bilinear, bicubic or lanczos)")
    if not options:
        return ""
    return (
        "neither it nor a file beside it says how a picture is prepared for it. How is it? Say "
        f"{', '.join(options)}, or put its config.json and preprocessor_config.json beside it"
    )
