"""What exporters write of a classifier: into the ONNX file's metadata, and into files beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from nonet.runtime.network_import import NetworkOfAnotherTask, NetworkRefused
from nonet.services.recognition.importing.facts import INTERPOLATIONS, Facts, names, side, square, triple
from nonet.services.recognition.importing.files_beside import (
    CONFIG,
    PROCESSOR,
    card_licence,
    folders_of,
    labels_in,
    literal,
    read_object,
)
from nonet.services.recognition.importing.picture_processors import kind_of, read_processor

_MODEL_INFO: Final = "model_info "
_TRUE: Final = ("true", "1", "yes")
_FITS: Final = {
    "": "",
    "crop": "crop",
    "standard": "stretch",
    "fit_to_window": "window",
    "fit_to_window_letterbox": "letterbox",
}
_CLASSIFIERS: Final = "ForImageClassification"
_TIMM_WRAPPER: Final = "TimmWrapper"


def read_facts(file: Path, metadata: Mapping[str, str], graph_size: int | None) -> Facts:
    """All that is said of the network in ``file``; what stands in the file counts before what lies beside it.

    ``graph_size``: side of the square that the graph takes, None if it leaves it open. Raises NetworkRefused
    for a network of another task, and for what cannot be served.
    """
    within = _ultralytics(metadata).over(model_api_facts(metadata, _is_classification, graph_size))
    return within.over(_beside(file, graph_size))


def ultralytics_facts(metadata: Mapping[str, str], task: str) -> Facts:
    """What Ultralytics writes of every network: task, names, imgsz and more.

    Empty without it. Raises NetworkOfAnotherTask if it names another task.
    """
    if "task" not in metadata or "names" not in metadata:
        return Facts()
    if metadata["task"] != task:
        raise NetworkOfAnotherTask(
            f"it is a network of Ultralytics for the task '{metadata['task']}', not '{task}'"
        )
    labels = names(literal(metadata["names"], "names"), "metadata 'names'")
    size = None
    if "imgsz" in metadata:
        value = literal(metadata["imgsz"], "imgsz")
        pair = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
        size = square(pair[0], pair[1], "metadata 'imgsz'")
    return Facts(
        system="Ultralytics",
        size=size,
        labels=labels,
        classes=len(labels) or None,
        licence=metadata.get("license", ""),
        read_from=("ONNX metadata",),
    )


def _ultralytics(metadata: Mapping[str, str]) -> Facts:
    """Its classifiers end in softmax."""
    said = ultralytics_facts(metadata, "classify")
    if not said.system:
        return said
    return said.over(
        Facts(
            resize=said.size,
            fit="crop",
            interpolation="bilinear",
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            channels="rgb",
            layout="nchw",
        )
    )


def model_api_facts(
    metadata: Mapping[str, str], is_kind: Callable[[str], bool], graph_size: int | None
) -> Facts:
    """OpenVINO Model API writes keys of ``model_info``; its mean and scale are of levels 0 to 255.

    Whether ``reverse_input_channels`` means RGB or BGR depends on what read the picture, so a network that
    sets it says nothing of its channels. Raises NetworkOfAnotherTask if its ``model_type`` is no such kind.
    """
    info = {
        key.removeprefix(_MODEL_INFO): value for key, value in metadata.items() if key.startswith(_MODEL_INFO)
    }
    if not info:
        return Facts()
    kind = info.get("model_type", "")
    if not is_kind(kind):
        raise NetworkOfAnotherTask(f"its metadata call it a model of type '{kind}'")
    if info.get("multilabel", "").lower() in _TRUE:
        raise _several_classes()
    mean, std = None, None
    if "mean_values" in info and "scale_values" in info:
        red, green, blue = triple(_numbers(info["mean_values"]), "metadata 'mean_values'")
        mean = (red / 255, green / 255, blue / 255)
        red, green, blue = triple(_numbers(info["scale_values"]), "metadata 'scale_values'")
        std = (red / 255, green / 255, blue / 255)
    resize_type = info.get("resize_type", "")
    if resize_type not in _FITS:
        raise NetworkRefused(f"its metadata ask for resize_type '{resize_type}', which is not served")
    pad = info.get("pad_value", "")
    labels = tuple(label.replace("_", " ") for label in info.get("labels", "").split())
    return Facts(
        system="OpenVINO Model API",
        resize=graph_size if resize_type else None,
        fit=_FITS[resize_type],
        pad=int(pad) if pad.isdecimal() and int(pad) < 256 else None,
        mean=mean,
        std=std,
        channels="unknown" if info.get("reverse_input_channels", "").lower() in _TRUE else "rgb",
        labels=labels,
        classes=len(labels) or None,
        read_from=("ONNX metadata",),
    )


def _is_classification(kind: str) -> bool:
    return kind.lower() == "classification"


def _beside(file: Path, graph_size: int | None) -> Facts:
    """``config.json``, ``preprocessor_config.json``, a file of labels and the licence of a model card; in the
    file's folder, or in the one above where that is called ``onnx``."""
    found = Facts()
    for folder in folders_of(file):
        found = found.over(_folder(folder, graph_size))
    return found


def _folder(folder: Path, graph_size: int | None) -> Facts:
    config, processor = read_object(folder / CONFIG), read_object(folder / PROCESSOR)
    facts = Facts()
    if processor is not None and not kind_of(processor).startswith(_TIMM_WRAPPER):
        facts = read_processor(processor, PROCESSOR)
    if config is not None:
        facts = facts.over(_config(config, graph_size))
    labels, name = labels_in(folder)
    if labels and not facts.labels:
        facts = facts.over(Facts(labels=labels, read_from=(name,)))
    return facts.over(Facts(licence=card_licence(folder)))


def _config(config: Mapping[str, Any], graph_size: int | None) -> Facts:
    """``config.json`` of timm (with ``pretrained_cfg``) or of transformers."""
    architectures = config.get("architectures")
    if isinstance(architectures, list) and architectures:
        if not any(str(each).endswith(_CLASSIFIERS) for each in architectures):
            raise NetworkOfAnotherTask(
                f"{CONFIG} calls it {architectures[0]}, which is no classifier of pictures"
            )
        if config.get("problem_type") == "multi_label_classification":
            raise _several_classes()
    elif "pretrained_cfg" not in config:
        return Facts()
    labels = config.get("id2label") or config.get("label_names")
    known = names(labels, f"{CONFIG}: id2label or label_names") if labels else ()
    described = config.get("label_descriptions")
    if isinstance(described, Mapping) and all(isinstance(described.get(label), str) for label in known):
        known = tuple(" ".join(described[label].split()) for label in known)
    classes = config.get("num_classes")
    facts = Facts(
        system="transformers" if architectures else "timm",
        labels=known,
        classes=classes if isinstance(classes, int) and classes > 0 else len(labels) if labels else None,
        read_from=(CONFIG,),
    )
    if classes == 0:
        raise NetworkRefused(f"{CONFIG} gives it no classes (num_classes 0): it is a backbone, no classifier")
    prepared = config.get("pretrained_cfg")
    return _timm(prepared, graph_size).over(facts) if isinstance(prepared, Mapping) else facts


def _timm(prepared: Mapping[str, Any], graph_size: int | None) -> Facts:
    """``pretrained_cfg``: the size of the graph may be the one of training or the larger one of testing."""
    what = f"{CONFIG}: pretrained_cfg"
    size = _input_size(prepared.get("input_size"), what)
    share = prepared.get("crop_pct")
    tested = _input_size(prepared.get("test_input_size"), what)
    if tested is not None and graph_size == tested != size:
        size, share = tested, prepared.get("test_crop_pct") or share
    interpolation = str(prepared.get("interpolation", ""))
    if interpolation and interpolation not in INTERPOLATIONS:
        raise NetworkRefused(f"{what}: interpolation '{interpolation}' is not served")
    modes = {"center": "crop", "squash": "stretch", "": "crop"}
    mode = str(prepared.get("crop_mode", ""))
    if mode not in modes:
        raise NetworkRefused(f"{what}: crop_mode '{mode}' is not served; center and squash are")
    sound = isinstance(share, int | float) and not isinstance(share, bool) and 0 < share <= 1
    return Facts(
        system="timm",
        size=size,
        resize=math.floor(size / share) if size is not None and sound and share else None,
        fit=modes[mode],
        interpolation=interpolation,
        mean=triple(prepared["mean"], f"{what}: mean") if "mean" in prepared else None,
        std=triple(prepared["std"], f"{what}: std") if "std" in prepared else None,
        channels="rgb",
        layout="nchw",
        licence=str(prepared.get("license") or ""),
        read_from=(CONFIG,),
    )


def _input_size(value: Any, what: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 3 or value[0] != 3:
        raise NetworkRefused(f"{what}: input_size {value!r} is not [3, height, width]")
    if value[1] != value[2]:
        return square(value[1], value[2], f"{what}: input_size")
    return side(value[1], f"{what}: input_size")


def _numbers(text: str) -> list[float] | None:
    try:
        numbers = [float(each) for each in text.replace(",", " ").split()]
    except ValueError:
        return None
    return numbers * 3 if len(numbers) == 1 else numbers


def _several_classes() -> NetworkRefused:
    return NetworkRefused(
        "it gives several classes at once (multi-label); only networks of one class a picture are imported"
    )
