"""What a detector can be asked: the objects in an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import WHOLE, ModelChoice, Page, Question, Task
from nonet.runtime.tensors import Tensor
from nonet.services.recognition.detection.derive import TASK
from nonet.services.recognition.detection.detect import BOXES, INPUT, LABELS, MOST, SCORES, SIZE
from nonet.services.recognition.whole_image import IMAGE, ImageSize

__all__ = ["DETECT"]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class DetectFields:
    """What goes with an image in which to detect objects."""

    model: ModelChoice = "auto"
    score_threshold: Annotated[
        float,
        Field(ge=0, le=1, allow_inf_nan=False, description="Objects with a lower score are left out."),
    ] = 0.25
    max_detections: Annotated[
        int,
        Field(ge=1, le=MOST, description="How many objects to return, best first."),
        WHOLE,
    ] = MOST


class Detection(BaseModel):
    """One object: where it is, what it is, and how sure the model is of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    box: list[float] = Field(
        min_length=4,
        max_length=4,
        description="Corners x1, y1, x2, y2 in pixels of the image as it is shown, from its top left.",
    )
    label: str = Field(description="Name of the class.")
    score: float = Field(ge=0, le=1)


class DetectResponse(BaseModel):
    """The objects in an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The model that answered.")
    image: ImageSize
    detections: list[Detection] = Field(description="Best first.")


def _ask(fields: DetectFields, image: bytes) -> Question:
    return Question((Tensor.of_bytes(INPUT, [image]),))


def _answer(info: ModelInfo, response: InferResponse, fields: DetectFields) -> Mapping[str, Any]:
    boxes, scores, labels = (response.output(name).data[0] for name in (BOXES, SCORES, LABELS))
    width, height = response.output(SIZE).data[0].tolist()
    # A score of 1e-45 is above a threshold of 0, an empty row is not.
    real = np.flatnonzero((labels >= 0) & (scores >= fields.score_threshold))[: fields.max_detections]
    return {
        "model": info.network or info.name,
        "image": {"width": width, "height": height},
        "detections": [
            {"box": boxes[row].tolist(), "label": info.labels[labels[row]], "score": float(scores[row])}
            for row in real.tolist()
        ],
    }


DETECT = Task(
    name=TASK,
    path="/v1/detect",
    rpc="nonet.v1.Recognition/Detect",
    title="Detect the objects in an image",
    description="Takes a form with the file part `image`, JSON with the image in base64 or as a data: URL, "
    "or the bytes of the image alone (then the other fields stand in the query). Boxes are in pixels of the "
    "image as it is shown: its EXIF orientation is applied.",
    tag="Recognition",
    fields=DetectFields,
    file=IMAGE,
    ask=_ask,
    answer=_answer,
    response=DetectResponse,
    rank="ap50",
    page=Page("/detect", "Objects", __package__ or ""),
    importer=f"{__package__}.importing.importer:import_detector",
)
