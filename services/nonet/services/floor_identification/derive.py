"""Which service a fitted building brings with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from nonet.runtime.servable import HasFiles, ModelInfo, Servable
from nonet.runtime.tensors import DataType
from nonet.services.floor_identification.identify import IdentifyServable

if TYPE_CHECKING:
    from nonet.runtime.errors import ModelRefused

TASK = "floor-identification"
TRANSMITTERS_FILE = "transmitters.txt"
FACTS_FILE = "building.json"


def derive(network: Servable) -> Sequence[Servable]:
    """``[identify.<network>]`` for a fitted building, nothing for any other network.

    Raises ModelRefused if its tensors, its transmitters or its floors do not fit together.
    """
    info = network.info
    if info.task != TASK:
        return ()
    if not isinstance(network, HasFiles):
        raise _refused(f"it needs the file '{TRANSMITTERS_FILE}' of its version")
    transmitters = _transmitters(network.read_file(TRANSMITTERS_FILE))
    facts = _facts(network.read_file(FACTS_FILE))
    _check(info, len(transmitters))
    return (IdentifyServable(network, transmitters, facts),)


def _transmitters(content: bytes) -> tuple[str, ...]:
    try:
        names = tuple(content.decode("utf-8").splitlines())
    except UnicodeDecodeError:
        raise _refused(f"'{TRANSMITTERS_FILE}' is not UTF-8") from None
    if len(set(names)) != len(names) or not all(names):
        raise _refused(f"'{TRANSMITTERS_FILE}' must hold a different name on each line")
    return names


def _facts(content: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(content)
    except ValueError:
        raise _refused(f"'{FACTS_FILE}' is not JSON") from None
    if not isinstance(facts, dict):
        raise _refused(f"'{FACTS_FILE}' is not a JSON object")
    return facts


def _check(info: ModelInfo, transmitters: int) -> None:
    outputs = {output.name: output for output in info.outputs}
    rssi = info.inputs[0]
    if len(info.inputs) != 1 or rssi.datatype is not DataType.FP32 or rssi.shape != (-1, transmitters):
        raise _refused(
            f"its input {rssi.datatype} {list(rssi.shape)} is not FP32 [N, {transmitters}], a column for "
            f"each line of '{TRANSMITTERS_FILE}'"
        )
    if info.max_batch_size < 1 or not info.labels:
        raise _refused("a fitted building batches, and names its floors in labels.txt")
    for name, width in (("distribution", len(info.labels)), ("known", 1)):
        output = outputs.get(name)
        if output is None or output.datatype is not DataType.FP32 or output.shape != (-1, width):
            raise _refused(f"it has no output '{name}' FP32 [N, {width}]")


def _refused(reason: str) -> ModelRefused:
    # Not at the top: the process that reads an upload imports this package too, and the repository with its
    # ONNX tools would be three quarters of its time.
    from nonet.runtime.errors import ModelRefused

    return ModelRefused(reason)
