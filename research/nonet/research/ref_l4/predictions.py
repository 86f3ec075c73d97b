"""A file of predictions: one box for each expression, in the official form."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nonet.research.ref_l4.annotations import Annotation
from nonet.research.ref_l4.overlaps import Box, to_corners
from nonet.runtime.errors import InvalidArgument

__all__ = ["Prediction", "boxes_for", "read_predictions", "write_predictions"]


@dataclass(frozen=True, slots=True)
class Prediction:
    """The box that an expression was answered with: its corners x1, y1, x2, y2 in pixels."""

    id: int
    box: Box


def read_predictions(content: Iterable[Mapping[str, Any]]) -> list[Prediction]:
    """``{"id", "pred_bbox": 4 numbers, "format": "xyxy" | "xywh"}`` each; of the formats only ``xywh`` is
    converted, as officially (specification, section 3.5).

    Raises InvalidArgument for a row that is none, or an id that is there twice.
    """
    found: dict[int, Prediction] = {}
    for number, row in enumerate(content):
        try:
            key = int(row["id"])
            x, y, z, w = (float(each) for each in row["pred_bbox"])
            if not all(math.isfinite(each) for each in (x, y, z, w)):
                raise ValueError("not finite")
        except (KeyError, TypeError, ValueError):
            raise InvalidArgument(
                f"prediction {number} is not {{id, pred_bbox: 4 numbers, format}}", param="predictions"
            ) from None
        if key in found:
            raise InvalidArgument(f"the predictions have the id {key} twice", param="predictions")
        box = (x, y, z, w)
        found[key] = Prediction(key, to_corners(box) if row.get("format") == "xywh" else box)
    return list(found.values())


def read_file(path: Path) -> list[Prediction]:
    """The predictions of a JSON file. Raises InvalidArgument."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise InvalidArgument(f"{path} cannot be read as JSON", param="predictions") from None
    if not isinstance(content, list):
        raise InvalidArgument(f"{path} is no list of predictions", param="predictions")
    return read_predictions(content)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write the official form, in the order given."""
    rows = [{"id": each.id, "pred_bbox": list(each.box), "format": "xyxy"} for each in predictions]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) + "\n", encoding="utf-8")


def boxes_for(annotations: Sequence[Annotation], predictions: Iterable[Prediction]) -> list[Box]:
    """The predicted box of every annotation, in their order; other predictions are ignored.

    Raises InvalidArgument if one is missing.
    """
    known = {each.id: each.box for each in predictions}
    missing = [row.id for row in annotations if row.id not in known]
    if missing:
        shown = ", ".join(str(each) for each in missing[:5])
        raise InvalidArgument(
            f"{len(missing)} of {len(annotations)} expressions have no prediction, the first: {shown}",
            param="predictions",
        )
    return [known[row.id] for row in annotations]
