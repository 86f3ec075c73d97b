"""An exported segmentation network (ONNX) -> a published version: read, asked about, tried, published.

A picture is always shown whole, stretched to the network's square, since masks are given for all of it. What
neither the file nor a file beside it says is asked for in one question and never supposed.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from pathlib import Path
from typing import Any, Final

import numpy as np
import safetensors.numpy

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import DecodedImage, Preprocessing
from nonet.runtime.network_import import Imported, ImportOptions, NetworkRefused, NetworkUnclear, Publish
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.labels import LABELS_FILE, read_labels
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import Array, DataType, TensorSpec
from nonet.services.recognition.importing import graph_ends
from nonet.services.recognition.importing.facts import Facts, side
from nonet.services.recognition.importing.given import check_name, read_picture
from nonet.services.recognition.importing.trial import LARGEST_BATCH, Trial, own_pictures, pixels_of
from nonet.services.recognition.segmentation.derive import TASK
from nonet.services.recognition.segmentation.importing.exporters import read_facts
from nonet.services.recognition.segmentation.importing.served_graph import (
    INPUT,
    OUTPUT,
    Maps,
    Segmenter,
    read_segmenter,
    served_graph,
)
from nonet.services.recognition.segmentation.pixel_masks import pixel_masks

MODEL_FILE: Final = "model.onnx"
CHECK_FILE: Final = "check.safetensors"
_BACKGROUND: Final = "background"
_BACKGROUNDS: Final = (_BACKGROUND, "__background__", "_background_", "bg", "void", "unlabeled", "unlabelled")
_SUM_TOLERANCE: Final = 5e-3
_TOLERANCE: Final = 1e-3
_SHOWN: Final = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """A reading that was run: what the maps mean, the labels that are served, the graph, and its answers FP32
    [P, C, h, w] to our own pictures [P, 3, side, side]."""

    maps: Maps
    labels: tuple[str, ...]
    model: Any
    network: Trial
    pixels: Array
    logits: Array
    batch: int

    @property
    def masks(self) -> str:
        """``exclusive`` or ``independent``, as the manifest says it."""
        return "independent" if self.maps.startswith("independent") else "exclusive"


def import_segmenter(file: Path) -> Publish:
    """Open the network in ``file``: the task's importer."""
    segmenter = read_segmenter(file)
    layout = graph_ends.layout_of(segmenter.image)
    size = graph_ends.square_side(segmenter.image, layout) if layout else None
    said = read_facts(file, graph_ends.read_metadata(file), size)
    return functools.partial(_publish, file, segmenter, said)


def _publish(
    file: Path, segmenter: Segmenter, said: Facts, name: str, repository: Path, options: ImportOptions
) -> Imported:
    """Publish the network as model ``name``.

    Raises NetworkRefused if it cannot be served, NetworkUnclear with the options that would answer what is
    open, and what ``publish_version`` raises.
    """
    check_name(name)
    if options.expect and options.picture is None:
        raise NetworkUnclear("--expect names what a picture shows: give the picture with --picture")
    picture = read_picture(options.picture) if options.picture else None
    facts = _complete(segmenter, said, options)
    spec = _preprocessing(facts)
    tried = _try(segmenter, facts, spec, _labels(segmenter, facts, options))
    licence = options.licence or facts.licence
    origin = f"an export of {facts.system}" if facts.system else "the options say"
    files = f" ({', '.join(facts.read_from)})" if facts.read_from else ""
    notes = [
        f"read as {origin}{files}: {len(tried.labels)} classes, {spec.crop} px, {tried.maps}; licence: "
        f"{licence or 'none stated'}"
    ]
    if picture is not None:
        notes.append(f"the picture shows: {_seen(tried, spec, picture, options.expect)}")
    published = publish_version(
        repository,
        name,
        {
            MODEL_FILE: tried.model.SerializeToString(),
            CHECK_FILE: safetensors.numpy.save({INPUT: tried.pixels, OUTPUT: tried.logits}),
        },
        build_config(
            name,
            max_batch_size=tried.batch,
            inputs=[TensorSpec(INPUT, DataType.FP32, (-1, 3, spec.crop, spec.crop))],
            outputs=[TensorSpec(OUTPUT, DataType.FP32, (-1, *tried.logits.shape[1:]))],
            label_file=LABELS_FILE,
        ),
        _manifest(file, name, facts, spec, tried, options),
        labels=tried.labels,
    )
    told = {
        "system": facts.system,
        "read_from": list(facts.read_from),
        "classes": len(tried.labels),
        "maps": tried.maps,
        "masks": tried.masks,
        "layout": facts.layout,
        "channels": facts.channels,
        "licence": licence,
        "largest_batch": tried.batch,
        "preprocessing": spec.to_manifest(),
    }
    return Imported(name, published.version, told, tuple(notes))


def _complete(segmenter: Segmenter, said: Facts, options: ImportOptions) -> Facts:
    """The facts of options, file and files beside it. Raises NetworkUnclear for what is open or contradicts
    them."""
    image = segmenter.image
    found = graph_ends.layout_of(image)
    if options.layout and found and options.layout != found:
        raise NetworkUnclear(
            f"its input {list(image.shape)} is {found}, not {options.layout}: leave --layout out"
        )
    layout = found or options.layout or said.layout
    size = graph_ends.square_side(image, layout) if layout else None
    if options.size is not None:
        side(options.size, "--size")
        if size not in (None, options.size):
            raise NetworkUnclear(f"the graph takes {size} px, not {options.size}: leave --size out")
    if options.resize is not None or options.fit not in ("", "stretch"):
        raise NetworkUnclear(
            "networks of masks are shown whole pictures, stretched: --size and --fit stretch"
        )
    if options.activation == "softmax":
        raise NetworkUnclear("--activation softmax is seen in its answers: leave it out")
    given = Facts(
        size=options.size or size,
        fit=options.fit,
        interpolation=options.interpolation,
        mean=options.mean,
        std=options.std,
        channels=options.channels,
        layout=layout,
        activation=options.activation,
    )
    facts = given.over(said)
    if image.datatype is DataType.UINT8:  # levels themselves: the graph normalises
        facts = dataclasses.replace(facts, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    if facts.mean is not None and not facts.channels:
        facts = dataclasses.replace(facts, channels="rgb")  # mean and std are stated of red, green and blue
    needed = _open(facts, options)
    if needed:
        raise NetworkUnclear(
            "it looks like a network that gives a class to every pixel; nothing that comes with it says "
            f"all that it needs. What is it? Say {', '.join(needed)}"
        )
    return facts


def _open(facts: Facts, options: ImportOptions) -> list[str]:
    needed = []
    if not facts.layout:
        needed.append("--layout (nchw or nhwc)")
    if facts.size is None:
        needed.append("--size (side of the square that goes in, in pixels)")
    if facts.fit != "stretch":
        needed.append(
            "--fit stretch (the whole picture is stretched to that square, whatever it was trained on)"
        )
    if facts.mean is None or facts.std is None:
        needed.append("--mean and --std (of red, green and blue, on the scale 0 to 1)")
    if facts.channels == "unknown":
        needed.append("--channels (rgb or bgr)")
    if not facts.interpolation:
        needed.append("--interpolation (bilinear, bicubic or lanczos)")
    if not facts.labels and options.labels is None:
        needed.append("--labels (names of its classes, by index)")
    return needed


def _labels(segmenter: Segmenter, facts: Facts, options: ImportOptions) -> tuple[str, ...]:
    """The network's own classes."""
    labels, where = facts.labels, " and ".join(facts.read_from)
    if options.labels is not None:
        try:
            labels, where = read_labels(options.labels), "--labels"
        except ModelRefused as refused:
            raise NetworkUnclear(refused.reason, param="--labels") from None
    stated = segmenter.maps.shape[1]
    if not segmenter.numbers and stated not in (-1, len(labels)):
        raise NetworkUnclear(
            f"there are {len(labels)} names ({where}) for {stated} classes. Which are they? Say --labels"
        )
    if not labels:
        raise NetworkUnclear(f"{where} names no class", param="--labels")
    return labels


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
            resize_type="standard",
        )
    except ValueError as error:
        raise NetworkUnclear(str(error)) from None


def _try(segmenter: Segmenter, facts: Facts, spec: Preprocessing, labels: tuple[str, ...]) -> Tried:
    """Run it on our own pictures. Raises NetworkRefused if the answers are no maps of its classes."""
    pixels = own_pictures(spec)
    maps: Maps = "classes" if segmenter.numbers else "logits"
    if maps == "logits" and segmenter.last_operation.endswith("Sigmoid"):
        maps = "independent probabilities"
    elif maps == "logits" and (facts.activation == "sigmoid" or len(labels) == 1):
        maps = "independent logits"
    background = not maps.startswith("independent") and labels[0].casefold() not in _BACKGROUNDS
    served = (_BACKGROUND, *labels) if background else labels

    def network(free: bool) -> tuple[Any, Trial]:
        model = served_graph(
            segmenter,
            maps,
            layout=facts.layout,
            channels=facts.channels,
            classes=len(labels),
            background=background,
            free=free,
        )
        return model, Trial(model)

    model, trial = network(free=False)
    answers = np.concatenate([_maps_of(trial, row[None], len(served)) for row in pixels])
    if not np.isfinite(answers).all():
        raise NetworkRefused("its answers to pictures are not finite numbers")
    if maps == "logits" and _are_probabilities(answers[:, 1:] if background else answers):
        maps = "probabilities"
    batch = 1
    for free in (False, True):
        freed_model, freed = network(free)
        if _agrees(freed, pixels, answers):
            model, trial, batch = freed_model, freed, LARGEST_BATCH
            break
    return Tried(maps, served, model, trial, pixels, answers, batch)


def _maps_of(trial: Trial, pixels: Array, classes: int) -> Array:
    found = trial.outputs(pixels)[0]
    if found.ndim != 4 or found.shape[:2] != (len(pixels), classes) or min(found.shape[2:]) < 2:
        raise NetworkRefused(
            f"it gives {list(found.shape)} for {len(pixels)} pictures, not [N, {classes}, h, w]"
        )
    return found


def _agrees(trial: Trial, pixels: Array, alone: Array) -> bool:
    """Whether several pictures at once get the answers that each gets alone."""
    try:
        together = _maps_of(trial, pixels, alone.shape[1])
    except NetworkRefused:
        return False
    scale = max(1.0, float(np.abs(alone[:, 1:]).max()))
    return bool(np.allclose(together, alone, rtol=0, atol=_TOLERANCE * scale))


def _are_probabilities(answers: Array) -> bool:
    sums = answers.astype(np.float64).sum(axis=1)
    return bool(answers.min() >= 0 and np.allclose(sums, 1, rtol=0, atol=_SUM_TOLERANCE))


def _seen(tried: Tried, spec: Preprocessing, picture: DecodedImage, expect: str) -> str:
    """The largest masks of a picture. Raises NetworkUnclear if what was expected has none."""
    (logits,) = tried.network.outputs(pixels_of(picture, spec))[0]
    exclusive = tried.masks == "exclusive"
    found = pixel_masks(logits, picture.width, picture.height, "exclusive" if exclusive else "independent")
    classes = tried.labels[1:] if exclusive else tried.labels
    shares = {label: float(mask.mean()) for label, mask in zip(classes, found.grid, strict=True)}
    largest = sorted((label for label in shares if shares[label]), key=lambda label: -shares[label])
    shown = ", ".join(f"{label} ({100 * shares[label]:.0f} %)" for label in largest[:_SHOWN]) or "nothing"
    if expect and expect not in classes:
        raise NetworkUnclear(f"--expect '{expect}' is none of its {len(classes)} classes")
    if expect and not shares[expect]:
        raise NetworkUnclear(
            f"read so, the picture shows {shown}, no '{expect}'. Is it to be prepared in another way? Say "
            "--mean, --std or --channels"
        )
    return shown


def _manifest(
    file: Path, name: str, facts: Facts, spec: Preprocessing, tried: Tried, options: ImportOptions
) -> Manifest:
    return Manifest.model_validate(
        {
            "schema": 1,
            "files": {MODEL_FILE: "0" * 64},  # the hashes are filled in by publishing
            "source": {
                "system": facts.system,
                "file": file.name,
                "read_from": list(facts.read_from),
                "layout": facts.layout,
                "channels": facts.channels,
                "maps": tried.maps,
                "masks": tried.masks,
            },
            "command": f"nonet models import {file.name} --as {name}",
            "licence": options.licence or facts.licence,
            "credit": options.credit,
            "task": TASK,
            "family": options.family,
            "preprocessing": spec.to_manifest(),
            "check_set": CHECK_FILE,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )
