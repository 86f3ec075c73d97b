"""What exporters write of a detector: into the ONNX file's metadata, and into files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nonet.runtime.network_import import NetworkOfAnotherTask, NetworkRefused
from nonet.services.recognition.importing.exporters import model_api_facts, ultralytics_facts
from nonet.services.recognition.importing.facts import Facts, names, side, square, triple
from nonet.services.recognition.importing.files_beside import (
    CONFIG,
    PROCESSOR,
    card_licence,
    folders_of,
    labels_in,
    read_object,
)
from nonet.services.recognition.importing.picture_processors import RESAMPLING, kind_of, normalisation

_PIPELINE: Final = "pipeline.json"
_DETECTORS: Final = "ForObjectDetection"
_SOFTMAX: Final = ("Detr", "Yolos", "TableTransformer")
_SIGMOID: Final = (
    "ConditionalDetr",
    "DFine",
    "DabDetr",
    "DeformableDetr",
    "Deta",
    "LwDetr",
    "RTDetr",
    "RTDetrV2",
    "RfDetr",
)
_PROCESSORS: Final = ("ConditionalDetr", "DeformableDetr", "Deta", "Detr", "RTDetr", "Yolos")
_RTDETR: Final = "RTDetr"
_MODEL_TYPES: Final = ("detection", "detr", "object_detection", "ssd", "yolo", "yolox")


def read_facts(file: Path, metadata: Mapping[str, str]) -> Facts:
    """All that is said of the network in ``file``; what stands in the file counts before what lies beside it.

    Raises NetworkOfAnotherTask for one that is called no detector, NetworkRefused for what cannot be served.
    """
    facts = ultralytics_facts(metadata, "detect").over(model_api_facts(metadata, _is_model_type, None))
    for folder in folders_of(file):
        facts = facts.over(_folder(folder))
    return facts


def _is_model_type(kind: str) -> bool:
    return kind.lower() in _MODEL_TYPES or kind.lower().startswith("yolov")


def _folder(folder: Path) -> Facts:
    config = read_object(folder / CONFIG)
    facts = _config(config) if config is not None else Facts()
    processor = read_object(folder / PROCESSOR)
    if processor is not None:
        facts = facts.over(_processor(processor))
    pipeline = read_object(folder / _PIPELINE)
    if pipeline is not None:
        facts = facts.over(_pipeline(pipeline))
    labels, name = labels_in(folder)
    if labels and not facts.labels:
        facts = facts.over(Facts(labels=labels, read_from=(name,)))
    return facts.over(Facts(licence=card_licence(folder)))


def _config(config: Mapping[str, Any]) -> Facts:
    """``config.json`` of transformers; whether a column is of no object depends on the architecture."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return Facts()
    architecture = str(architectures[0])
    if not architecture.endswith(_DETECTORS):
        raise NetworkOfAnotherTask(f"{CONFIG} calls it {architecture}, which is no detector")
    kind = architecture.removesuffix(_DETECTORS)
    labels = config.get("id2label")
    return Facts(
        system="transformers",
        activation="softmax" if kind in _SOFTMAX else "sigmoid" if kind in _SIGMOID else "",
        labels=names(labels, f"{CONFIG}: id2label") if labels else (),
        read_from=(CONFIG,),
    )


def _processor(config: Mapping[str, Any]) -> Facts:
    """``preprocessor_config.json``. One that keeps a picture's shape leaves size and fit open, since a served
    network takes squares."""
    config = {key: value for key, value in config.items() if value is not None}
    kind = kind_of(config)
    if kind not in _PROCESSORS:
        return Facts()
    mean, std = normalisation(config, kind != _RTDETR, PROCESSOR)
    resample = config.get("resample", 2)
    if resample not in RESAMPLING or not config.get("do_resize", True):
        raise NetworkRefused(f"{PROCESSOR}: its resizing (resample {resample!r}) is not served")
    size = config.get("size")
    both = None
    if isinstance(size, Mapping) and {"height", "width"} <= size.keys():
        both = square(size["height"], size["width"], f"{PROCESSOR}: size")
    return Facts(
        system="transformers",
        size=both,
        fit="stretch" if both else "",
        interpolation=RESAMPLING[resample],
        mean=mean,
        std=std,
        channels="rgb",
        layout="nchw",
        read_from=(PROCESSOR,),
    )


def _pipeline(config: Mapping[str, Any]) -> Facts:
    """``pipeline.json``, which mmdeploy writes for its own runtime: the steps before the network."""
    steps: dict[str, Mapping[str, Any]] = {}
    pipeline = config.get("pipeline")
    tasks = pipeline.get("tasks") if isinstance(pipeline, Mapping) else None
    for task in tasks if isinstance(tasks, list) else ():
        transforms = task.get("transforms") if isinstance(task, Mapping) else None
        for each in transforms if isinstance(transforms, list) else ():
            if isinstance(each, Mapping):
                steps[str(each.get("type"))] = each
    facts = Facts(system="mmdeploy", read_from=(_PIPELINE,)) if steps else Facts()
    if "Resize" in steps:
        facts = _resize(steps["Resize"], steps.get("Pad", {})).over(facts)
    if "Normalize" in steps:
        step = steps["Normalize"]
        mean, std = (triple(step.get(key), f"{_PIPELINE}: Normalize: {key}") for key in ("mean", "std"))
        bgr = not step.get("to_rgb", True)
        if bgr:  # stated in the order of the channels
            mean, std = mean[::-1], std[::-1]
        facts = Facts(
            mean=(mean[0] / 255, mean[1] / 255, mean[2] / 255),
            std=(std[0] / 255, std[1] / 255, std[2] / 255),
            channels="bgr" if bgr else "rgb",
        ).over(facts)
    return facts


def _resize(step: Mapping[str, Any], pad: Mapping[str, Any]) -> Facts:
    what = f"{_PIPELINE}: Resize"
    size = step.get("size")
    if isinstance(size, list) and len(size) == 2:
        if size[0] != size[1]:
            return Facts()
        size = size[0]
    pixels = side(size, f"{what}: size")
    if not step.get("keep_ratio", False):
        return Facts(size=pixels, fit="stretch")
    value = pad.get("pad_val", 0)
    value = value.get("img", 0) if isinstance(value, Mapping) else value
    levels = triple(value, f"{_PIPELINE}: Pad: pad_val")
    if len(set(levels)) != 1 or levels[0] not in range(256):
        raise NetworkRefused(f"{_PIPELINE}: Pad: pad_val {value!r} is not one level from 0 to 255")
    return Facts(size=pixels, fit="window", pad=int(levels[0]))
