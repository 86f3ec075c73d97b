"""What exporters write of a segmentation network: into the ONNX file's metadata, and into files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from nonet.runtime.network_import import NetworkOfAnotherTask
from nonet.services.recognition.importing.exporters import model_api_facts
from nonet.services.recognition.importing.facts import Facts, names
from nonet.services.recognition.importing.files_beside import (
    CONFIG,
    PROCESSOR,
    card_licence,
    folders_of,
    labels_in,
    read_object,
)
from nonet.services.recognition.importing.picture_processors import read_processor

_SEGMENTERS: Final = "ForSemanticSegmentation"
_MODEL_TYPE: Final = "segmentation"


def read_facts(file: Path, metadata: Mapping[str, str], graph_size: int | None) -> Facts:
    """All that is said of the network in ``file``; what stands in the file counts before what lies beside it.

    ``graph_size``: side of the square that the graph takes, None if it leaves it open. Raises
    NetworkOfAnotherTask for one that is called no network of masks, NetworkRefused for what cannot be served.
    """
    if "task" in metadata and "names" in metadata:
        raise NetworkOfAnotherTask(
            f"it is a network of Ultralytics for the task '{metadata['task']}', none that gives a class to "
            "every pixel"
        )
    facts = model_api_facts(metadata, lambda kind: kind.lower() == _MODEL_TYPE, graph_size)
    for folder in folders_of(file):
        facts = facts.over(_folder(folder))
    return facts


def _folder(folder: Path) -> Facts:
    config, processor = read_object(folder / CONFIG), read_object(folder / PROCESSOR)
    facts = _config(config) if config is not None else Facts()
    if processor is not None:
        facts = facts.over(read_processor(processor, PROCESSOR))
    labels, name = labels_in(folder)
    if labels and not facts.labels:
        facts = facts.over(Facts(labels=labels, read_from=(name,)))
    return facts.over(Facts(licence=card_licence(folder)))


def _config(config: Mapping[str, Any]) -> Facts:
    """``config.json`` of transformers."""
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not architectures:
        return Facts()
    architecture = str(architectures[0])
    if not architecture.endswith(_SEGMENTERS):
        raise NetworkOfAnotherTask(f"{CONFIG} calls it {architecture}, which gives no class to every pixel")
    labels = config.get("id2label")
    return Facts(
        system="transformers",
        labels=names(labels, f"{CONFIG}: id2label") if labels else (),
        read_from=(CONFIG,),
    )
