"""An exported classifier (ONNX) -> a published version: read, asked about, tried on pictures, published.

A fact comes from an option, from the file, or from a file beside it, in this order. What none of them says
is asked for in one question and never supposed.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
from pathlib import Path
from typing import Any, Final

import safetensors.numpy

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import DecodedImage, Preprocessing
from nonet.runtime.network_import import Imported, ImportOptions, NetworkRefused, NetworkUnclear, Publish
from nonet.runtime.repository.config import build_config
from nonet.runtime.repository.labels import LABELS_FILE, read_labels
from nonet.runtime.repository.manifest import Manifest
from nonet.runtime.repository.publish import publish_version
from nonet.runtime.tensors import Array, DataType, TensorSpec
from nonet.services.recognition.classify import softmax
from nonet.services.recognition.derive import TASK
from nonet.services.recognition.importing import graph_ends, trial
from nonet.services.recognition.importing.exporters import read_facts
from nonet.services.recognition.importing.facts import Facts
from nonet.services.recognition.importing.given import check_name, read_picture
from nonet.services.recognition.importing.graph_ends import Ends
from nonet.services.recognition.importing.reading import candidates, facts_of, question_of

MODEL_FILE: Final = "model.onnx"
CHECK_FILE: Final = "check.safetensors"
_SEVERAL_FROM: Final = ("Sigmoid", "HardSigmoid")


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """A reading that was run: its graph, its answers to our own pictures, and its largest batch."""

    reading: Facts
    preprocessing: Preprocessing
    model: Any
    network: trial.Trial
    pixels: Array
    logits: Array
    batch: int


def import_classifier(file: Path) -> Publish:
    """Open the classifier in ``file``: the task's importer."""
    ends = graph_ends.read_ends(file)
    read_facts(file, ends.metadata, None)
    if ends.last_operation in _SEVERAL_FROM:
        raise NetworkRefused(
            "it ends in a sigmoid and gives several classes at once; only networks of one class are imported"
        )
    return functools.partial(_publish, file, ends)


def _publish(file: Path, ends: Ends, name: str, repository: Path, options: ImportOptions) -> Imported:
    """Publish the classifier as model ``name``.

    Raises NetworkRefused if it cannot be served, NetworkUnclear with the options that would answer what is
    open, and what ``publish_version`` raises.
    """
    check_name(name)
    if options.expect and options.picture is None:
        raise NetworkUnclear("--expect names what a picture shows: give the picture with --picture")
    picture = read_picture(options.picture) if options.picture else None
    facts = facts_of(file, ends, options)
    tried = _decide(ends, facts, options, picture)
    labels = _labels(tried, options)
    notes = [_described(tried, labels)]
    if picture is not None:
        notes.append(_seen(tried, labels, picture, options.expect))
    published = publish_version(
        repository,
        name,
        {
            MODEL_FILE: tried.model.SerializeToString(),
            CHECK_FILE: safetensors.numpy.save(
                {tried.network.input: tried.pixels, tried.network.output: tried.logits}
            ),
        },
        _configuration(name, tried, bool(labels)),
        _manifest(file, name, tried, options),
        labels=labels,
    )
    facts_said = {
        "system": tried.reading.system,
        "read_from": list(tried.reading.read_from),
        "classes": int(tried.logits.shape[1]),
        "labels": len(labels),
        "activation": tried.reading.activation,
        "layout": tried.reading.layout,
        "channels": tried.reading.channels,
        "licence": options.licence or tried.reading.licence,
        "largest_batch": tried.batch,
        "preprocessing": tried.preprocessing.to_manifest(),
    }
    return Imported(name, published.version, facts_said, tuple(notes))


def _decide(ends: Ends, facts: Facts, options: ImportOptions, picture: DecodedImage | None) -> Tried:
    """The one reading. What is open is decided by the picture if exactly one candidate sees in it what it
    shows, else asked."""
    question = question_of(facts)
    if not question:
        return _try(ends, facts)
    if picture is None or not options.expect or not facts.layout or facts.size is None:
        raise NetworkUnclear(question)
    right = []
    for candidate in candidates(facts):
        tried = _try(ends, candidate)
        labels = _labels(tried, options)
        if _index(labels, options.expect, tried.logits.shape[1]) == _best(tried, picture)[0]:
            right.append(tried)
    if len(right) != 1:
        raise NetworkUnclear(
            f"{len(right)} of the usual ways to prepare the picture give '{options.expect}', so it does not "
            f"decide; {question}"
        )
    return right[0]


def _try(ends: Ends, facts: Facts) -> Tried:
    """Run a complete reading. Raises NetworkRefused, and NetworkUnclear where answers contradict it."""
    assert facts.size is not None
    assert facts.resize is not None
    assert facts.mean is not None
    assert facts.std is not None
    try:
        preprocessing = Preprocessing(
            resize=facts.resize,
            crop=facts.size,
            interpolation=facts.interpolation,
            mean=facts.mean,
            std=facts.std,
            resize_type="standard" if facts.fit == "stretch" else "crop",
        )
    except ValueError as error:
        raise NetworkUnclear(str(error)) from None
    pixels = trial.own_pictures(preprocessing)
    network, model, answers = _run(ends, facts, pixels, probabilities=False)
    found = _activation(answers, facts.activation)
    if found == "softmax":
        network, model, answers = _run(ends, facts, pixels, probabilities=True)
    if facts.classes is not None and facts.classes != answers.shape[1]:
        raise NetworkRefused(
            f"{' and '.join(facts.read_from)} speak of {facts.classes} classes, it gives {answers.shape[1]}: "
            "they belong to another network"
        )
    batch = trial.largest_batch(network, pixels, answers)
    return Tried(
        dataclasses.replace(facts, activation=found), preprocessing, model, network, pixels, answers, batch
    )


def _activation(answers: Array, said: str) -> str:
    """``softmax`` or ``logits``, by the answers.

    Raises NetworkUnclear where they leave it open, or contradict what was said.
    """
    if trial.are_probabilities(answers):
        if said == "logits":
            raise NetworkUnclear("its answers add up to 1: they are no logits (--activation softmax)")
        return "softmax"
    if not trial.could_be_probabilities(answers):
        if said == "softmax":
            raise NetworkUnclear(
                "its answers do not lie between 0 and 1: they are logits (--activation logits)"
            )
        return "logits"
    if not said:
        raise NetworkUnclear(
            "its answers lie between 0 and 1, but do not add up to 1. Are they logits, or roughly what a "
            "softmax gives? Say --activation"
        )
    return said


def _run(ends: Ends, facts: Facts, pixels: Array, *, probabilities: bool) -> tuple[trial.Trial, Any, Array]:
    model = graph_ends.served_graph(
        ends, layout=facts.layout, channels=facts.channels, probabilities=probabilities
    )
    network = trial.Trial(model)
    return network, model, trial.each_alone(network, pixels)


def _labels(tried: Tried, options: ImportOptions) -> tuple[str, ...]:
    classes = tried.logits.shape[1]
    if options.labels is None:
        named = len(tried.reading.labels)
        if named not in (0, classes):
            raise NetworkUnclear(
                f"there are {named} names for {classes} classes. Which are they? Say --labels"
            )
        return tried.reading.labels
    try:
        labels = read_labels(options.labels)
    except ModelRefused as refused:
        raise NetworkUnclear(refused.reason, param="--labels") from None
    if len(labels) != classes:
        raise NetworkUnclear(f"--labels has {len(labels)} names, the network gives {classes} classes")
    return labels


def _best(tried: Tried, picture: DecodedImage) -> tuple[int, float]:
    """Index and score of the best class of a picture."""
    scores = softmax(tried.network.run(trial.pixels_of(picture, tried.preprocessing)))[0]
    return int(scores.argmax()), float(scores.max())


def _seen(tried: Tried, labels: tuple[str, ...], picture: DecodedImage, expect: str) -> str:
    index, score = _best(tried, picture)
    label = labels[index] if labels else str(index)
    if expect and _index(labels, expect, tried.logits.shape[1]) != index:
        raise NetworkUnclear(
            f"read so, the picture shows '{label}' ({score:.2f}), not '{expect}'. Is it to be prepared "
            "in another way? Say --mean, --std, --channels, --resize or --fit"
        )
    return f"the picture shows: {label} ({score:.2f})"


def _index(labels: tuple[str, ...], expect: str, classes: int) -> int:
    """The class of that name, or index. Raises NetworkUnclear."""
    if expect in labels:
        return labels.index(expect)
    if expect.isascii() and expect.isdigit() and int(expect) < classes:
        return int(expect)
    raise NetworkUnclear(f"--expect '{expect}' is none of its {classes} classes, by name or index")


def _described(tried: Tried, labels: tuple[str, ...]) -> str:
    facts = tried.reading
    origin = f"an export of {facts.system}" if facts.system else "the options say"
    files = f" ({', '.join(facts.read_from)})" if facts.read_from else ""
    named = "" if labels else " without names (give them with --labels)"
    return (
        f"read as {origin}{files}: {tried.logits.shape[1]} classes{named}, {tried.preprocessing.crop} px, "
        f"{facts.activation}; licence: {facts.licence or 'none stated'}"
    )


def _configuration(name: str, tried: Tried, labelled: bool) -> str:
    size, classes = tried.preprocessing.crop, tried.logits.shape[1]
    return build_config(
        name,
        max_batch_size=tried.batch,
        inputs=[TensorSpec(tried.network.input, DataType.FP32, (-1, 3, size, size))],
        outputs=[TensorSpec(tried.network.output, DataType.FP32, (-1, classes))],
        label_file=LABELS_FILE if labelled else "",
    )


def _manifest(file: Path, name: str, tried: Tried, options: ImportOptions) -> Manifest:
    facts = tried.reading
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
                "activation": facts.activation,
            },
            "command": f"nonet models import {file.name} --as {name}",
            "licence": options.licence or facts.licence,
            "credit": options.credit,
            "task": TASK,
            "family": options.family,
            "preprocessing": tried.preprocessing.to_manifest(),
            "check_set": CHECK_FILE,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
    )
