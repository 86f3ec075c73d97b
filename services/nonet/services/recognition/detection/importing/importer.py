"""An exported detector (ONNX) -> a published version: told apart, asked about, tried, published."""

from __future__ import annotations

import dataclasses
import datetime
import functools
from pathlib import Path
from typing import Any, Final

import safetensors.numpy

from nonet.runtime.network_import import (
    Imported,
    ImportOptions,
    NetworkOfAnotherTask,
    NetworkUnclear,
    Publish,
)
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.graph import Graph
from nonet.runtime.repository.labels import LABELS_FILE
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import DataType, TensorSpec
from nonet.services.recognition.detection.derive import TASK
from nonet.services.recognition.detection.detect import BOXES, SCORES
from nonet.services.recognition.detection.importing.exporters import read_facts
from nonet.services.recognition.detection.importing.layouts import Layout, layout_of
from nonet.services.recognition.detection.importing.reading import Reading, complete
from nonet.services.recognition.detection.importing.seen import described, expected, read_answers, seen
from nonet.services.recognition.detection.importing.served_graph import INPUT, Detector, can_be_fed
from nonet.services.recognition.detection.importing.trial import Tried, try_reading
from nonet.services.recognition.importing import graph_ends
from nonet.services.recognition.importing.facts import Facts
from nonet.services.recognition.importing.given import check_name, read_picture

MODEL_FILE: Final = "model.onnx"
CHECK_FILE: Final = "check.safetensors"


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """A file that is a detector's: which one, and what is said of it."""

    file: Path
    detector: Detector
    layout: Layout
    said: Facts


def import_detector(file: Path) -> Publish:
    """Open the detector in ``file``: the task's importer."""
    graph = graph_ends.read_interface(file)
    image, others, one_picture = _inputs(graph)
    side = _side(image)
    metadata = graph_ends.read_metadata(file)
    said = read_facts(file, metadata)
    layout = layout_of((image, *others), graph.outputs, side, said)
    detector = Detector(
        graph_ends.read_whole(file, graph.external_files), image, one_picture, others, graph.outputs
    )
    return functools.partial(_publish, Opened(file, detector, layout, said))


def _inputs(graph: Graph) -> tuple[TensorSpec, tuple[TensorSpec, ...], bool]:
    """The input that takes a picture, the others, and whether it takes one picture without a batch axis."""
    needed = [spec for spec in graph.inputs if not spec.optional]
    others = tuple(spec for spec in needed if can_be_fed(spec))
    images = [spec for spec in needed if spec not in others]
    if len(images) != 1:
        listed = ", ".join(spec.name for spec in images) or "none"
        raise NetworkOfAnotherTask(
            f"a detector has one input for a picture, this has {len(images)}: {listed}"
        )
    (image,) = images
    one_picture = len(image.shape) == 3
    if one_picture:
        image = dataclasses.replace(image, shape=(1, *image.shape))
    return graph_ends.picture_input(image), others, one_picture


def _side(image: TensorSpec) -> int | None:
    axes = graph_ends.layout_of(image)
    return graph_ends.square_side(image, axes) if axes else None


def _publish(opened: Opened, name: str, repository: Path, options: ImportOptions) -> Imported:
    """Publish the detector as model ``name``.

    Raises NetworkRefused if it cannot be served, NetworkUnclear with the options that would answer what is
    open, and what ``publish_version`` raises.
    """
    check_name(name)
    if options.expect and options.picture is None:
        raise NetworkUnclear("--expect says what a picture shows: give the picture with --picture")
    picture = read_picture(options.picture) if options.picture else None
    wanted = read_answers(options.expect)
    reading = complete(opened.detector.image, opened.layout, opened.said, options)
    tried = try_reading(opened.detector, opened.layout, reading, picture)
    notes = [_described(opened, tried, options)]
    if picture is not None:
        found = seen(tried, reading, picture)
        notes.append(f"the picture shows: {described(found)}")
        expected(found, wanted, options.expect, reading)
    published = publish_version(
        repository,
        name,
        {
            MODEL_FILE: tried.model.SerializeToString(),
            CHECK_FILE: safetensors.numpy.save(
                {INPUT: tried.pixels[:1], BOXES: tried.boxes[:1], SCORES: tried.scores[:1]}
            ),
        },
        _configuration(name, tried, reading),
        _manifest(opened, name, tried, reading, options),
        labels=reading.labels,
    )
    return Imported(name, published.version, _facts(opened, tried, reading, options), tuple(notes))


def _described(opened: Opened, tried: Tried, options: ImportOptions) -> str:
    reading, facts = tried.reading, tried.reading.facts
    files = f" ({', '.join(facts.read_from)})" if facts.read_from else ""
    named = "" if reading.named else " without names (give them with --labels)"
    spec = reading.preprocessing
    return (
        f"read as a detector of {facts.system}{files}: {len(reading.labels)} classes{named}, {spec.crop} px, "
        f"{spec.resize_type}, {facts.channels}, boxes as {tried.meant}; "
        f"licence: {options.licence or facts.licence or 'none stated'}"
    )


def _facts(opened: Opened, tried: Tried, reading: Reading, options: ImportOptions) -> dict[str, Any]:
    facts = reading.facts
    return {
        "system": facts.system,
        "read_from": list(facts.read_from),
        "classes": len(reading.labels),
        "labels": len(reading.labels) if reading.named else 0,
        "boxes": tried.meant,
        "layout": facts.layout,
        "channels": facts.channels,
        "licence": options.licence or facts.licence,
        "largest_batch": tried.batch,
        "preprocessing": reading.preprocessing.to_manifest(),
    }


def _configuration(name: str, tried: Tried, reading: Reading) -> str:
    size, (_, places, classes) = reading.preprocessing.crop, tried.scores.shape
    return build_config(
        name,
        max_batch_size=tried.batch,
        inputs=[TensorSpec(INPUT, DataType.FP32, (-1, 3, size, size))],
        outputs=[
            TensorSpec(BOXES, DataType.FP32, (-1, places, 4)),
            TensorSpec(SCORES, DataType.FP32, (-1, places, classes)),
        ],
        label_file=LABELS_FILE,
    )


def _manifest(opened: Opened, name: str, tried: Tried, reading: Reading, options: ImportOptions) -> Manifest:
    facts = reading.facts
    return Manifest.model_validate(
        {
            "schema": 1,
            "files": {MODEL_FILE: "0" * 64},  # the hashes are filled in by publishing
            "source": {
                "system": facts.system,
                "file": opened.file.name,
                "read_from": list(facts.read_from),
                "layout": facts.layout,
                "channels": facts.channels,
                "boxes": tried.meant,
            },
            "command": f"nonet models import {opened.file.name} --as {name}",
            "licence": options.licence or facts.licence,
            "credit": options.credit,
            "task": TASK,
            "family": options.family,
            "preprocessing": reading.preprocessing.to_manifest(),
            "check_set": CHECK_FILE,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )
