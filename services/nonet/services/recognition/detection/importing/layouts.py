"""Which exporter's detector a graph is, by the names, types and shapes of its inputs and outputs.

The same name means different things (``labels`` are logits in one export and indices in another), so that a
row of this table needs names or shapes that no other row has.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final

from nonet.runtime.network_import import NetworkOfAnotherTask, NetworkRefused
from nonet.runtime.tensors import DataType, TensorSpec
from nonet.services.recognition.detection.importing import decoding
from nonet.services.recognition.detection.importing.decoding import STRIDES, Decode, places_of
from nonet.services.recognition.importing.facts import Facts

SIZES: Final = "orig_target_sizes"
MASK: Final = "pixel_mask"
_FLOATS: Final = (DataType.FP32, DataType.FP16)
_INDICES: Final = (DataType.INT64, DataType.INT32)
_PLAIN: Final = Facts(
    mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), channels="rgb", layout="nchw", interpolation="bilinear"
)
_LEVELS: Final = (1 / 255, 1 / 255, 1 / 255)
_LETTERBOX: Final = dataclasses.replace(_PLAIN, system="Ultralytics", fit="letterbox", pad=114)
_YOLOX: Final = dataclasses.replace(
    _PLAIN, system="YOLOX", fit="window", pad=114, channels="bgr", std=_LEVELS
)
_IMAGENET: Final = dataclasses.replace(
    _PLAIN, system="RF-DETR", fit="stretch", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
_STRETCHED: Final = dataclasses.replace(_PLAIN, system="RT-DETR or D-FINE", fit="stretch")
_TORCHVISION: Final = dataclasses.replace(_PLAIN, system="torchvision")
_MMDEPLOY: Final = Facts(system="mmdeploy", layout="nchw", interpolation="bilinear")
_TRANSFORMERS: Final = Facts(system="transformers", layout="nchw")


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """A row of the table.

    Args:
        outputs: names of the outputs that are read, in the order in which ``decodes`` takes them.
        decodes: the ways in which they may be meant, by name.
        usual: what networks of this exporter need of a picture, as far as all of them do.
        columns: how many columns of scores there are; None where classes are given by their index.
        nothing: how many of the last columns may be of no object.
    """

    outputs: tuple[str, ...]
    decodes: Mapping[str, Decode]
    usual: Facts
    columns: int | None = None
    nothing: tuple[int, ...] = (0,)


def layout_of(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], side: int | None, said: Facts
) -> Layout:
    """The layout of a graph. Raises NetworkOfAnotherTask for one that is no detector's.

    Args:
        inputs, outputs: of the graph.
        side: of the square that goes in, None where the graph leaves it open.
        said: what the file and the files beside it say.
    """
    named = {spec.name: spec for spec in outputs}
    found = _queries(named, said) or _by_index(inputs, outputs)
    if found is None and outputs and len(outputs[0].shape) == 3 and outputs[0].datatype in _FLOATS:
        found = _one_table(outputs, side or said.size, said)
    if found is not None:
        return found
    shown = ", ".join(f"{spec.name} {spec.datatype} {list(spec.shape)}" for spec in outputs)
    message = f"its outputs ({shown}) are those of no detector that is known"
    if said.system:  # the file itself says that it is a detector
        raise NetworkRefused(message)
    raise NetworkOfAnotherTask(message)


def _queries(named: Mapping[str, TensorSpec], said: Facts) -> Layout | None:
    """A box and a row of logits for each of a fixed number of queries."""
    for boxes, logits, usual in (("pred_boxes", "logits", _TRANSFORMERS), ("dets", "labels", _IMAGENET)):
        if not (_is(named.get(boxes), _FLOATS, 3) and _is(named.get(logits), _FLOATS, 3)):
            continue
        if named[boxes].shape[2] not in (4, -1):  # exporters leave open what they cannot infer
            continue
        columns = named[logits].shape[2]
        if columns < 1 and usual is _TRANSFORMERS and said.activation and said.labels:
            columns = len(said.labels) + (said.activation == "softmax")
        if columns < 1:
            raise NetworkRefused(f"its output '{logits}' leaves open how many classes there are")
        if usual is _IMAGENET:
            # Trained on COCO's indices every column is a class; on other data the last is of no object.
            return Layout((boxes, logits), {"sigmoid": decoding.sigmoid_queries}, usual, columns, (0, 1))
        decodes = {"sigmoid": decoding.sigmoid_queries, "softmax": decoding.softmax_queries}
        return Layout((boxes, logits), decodes, usual, columns)
    return None


def _by_index(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> Layout | None:
    """Boxes with a score and the index of a class."""
    boxes5 = [spec for spec in outputs if _is(spec, _FLOATS, 3, last=5)]
    labels = [spec for spec in outputs if _is(spec, _INDICES, 2)]
    if len(boxes5) == len(labels) == 1:
        return Layout(
            (boxes5[0].name, labels[0].name), {"corners and score": decoding.scored_boxes}, _MMDEPLOY
        )
    for rank, decode, usual in (
        (2, decoding.sorted_queries, _STRETCHED),
        (1, decoding.one_picture, _TORCHVISION),
    ):
        boxes = [spec for spec in outputs if _is(spec, _FLOATS, rank + 1, last=4)]
        scores = [spec for spec in outputs if _is(spec, _FLOATS, rank)]
        labels = [spec for spec in outputs if _is(spec, _INDICES, rank)]
        if len(boxes) == len(scores) == len(labels) == 1 and (
            rank == 1 or any(spec.name == SIZES for spec in inputs)
        ):
            names = (boxes[0].name, scores[0].name, labels[0].name)
            return Layout(names, {"corners": decode}, usual)
    return None


def _one_table(outputs: Sequence[TensorSpec], side: int | None, said: Facts) -> Layout | None:
    """One row, or one column, for each place."""
    name, (rows, columns) = outputs[0].name, outputs[0].shape[1:]
    metadata = said.system == "Ultralytics"
    if len(outputs) > 1:
        return None
    if metadata and columns == 6 and rows != 4 + len(said.labels):
        return Layout((name,), {"corners, score and class": decoding.six_columns}, _LETTERBOX)
    if metadata and said.labels and rows in (-1, 4 + len(said.labels)):
        decodes: dict[str, Decode] = {"centre and size": decoding.channels_first}
        return Layout((name,), decodes, _LETTERBOX, len(said.labels))
    side = side or _side_of(max(rows, columns))
    if side is None:
        return None
    cells = [places_of(side, strides) for strides in STRIDES]
    if columns in cells and rows > 4:
        return Layout((name,), {"centre and size": decoding.channels_first}, _LETTERBOX, rows - 4)
    if rows in cells and columns > 5:
        decodes = {"raw per stride": decoding.objectness_per_cell, "decoded": decoding.objectness}
        return Layout((name,), decodes, _YOLOX, columns - 5)
    return None


def strides_of(places: int, side: int) -> tuple[int, ...]:
    """On which grids there are as many places; the usual ones if on none."""
    return next((each for each in STRIDES if places_of(side, each) == places), STRIDES[0])


def _side_of(places: int) -> int | None:
    """The side of a square with as many cells on the usual grids; None if there is none."""
    unit = places_of(STRIDES[0][-1], STRIDES[0])
    count = math.isqrt(max(0, places) // unit)
    return count * STRIDES[0][-1] if count and count * count * unit == places else None


def _is(spec: TensorSpec | None, types: tuple[DataType, ...], rank: int, last: int | None = None) -> bool:
    if spec is None or spec.datatype not in types or len(spec.shape) != rank:
        return False
    return last is None or spec.shape[-1] == last
