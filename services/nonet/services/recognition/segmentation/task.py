"""What segmentation can be asked: the masks of an image's classes, as run lengths or as an overlay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import Blob, ModelChoice, Page, Question, Task
from nonet.runtime.tensors import Tensor
from nonet.services.recognition.segmentation.derive import TASK
from nonet.services.recognition.segmentation.overlay import CONTENT_TYPE
from nonet.services.recognition.segmentation.segment import INPUT, MASKS, OVERLAY
from nonet.services.recognition.whole_image import IMAGE, ImageSize

__all__ = ["SEGMENT"]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class SegmentFields:
    """What goes with an image to segment."""

    model: ModelChoice = "auto"
    output: Annotated[
        Literal["masks", "overlay"],
        Field(
            description="`masks`: JSON with a mask for each class. `overlay`: a PNG of the image's size to "
            "be laid over it, each class in its colour, transparent elsewhere; `Accept: image/png` asks for "
            "it too."
        ),
    ] = "masks"


class RunLengths(BaseModel):
    """A mask in COCO's compressed run lengths; `pycocotools.mask.decode` reads it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: list[int] = Field(
        min_length=2, max_length=2, description="Height and width of the image in pixels."
    )
    counts: str = Field(description="Run lengths, column by column.")


class Mask(BaseModel):
    """The pixels of one class."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(description="Name of the class.")
    area: int = Field(ge=1, description="How many pixels it has.")
    rle: RunLengths


class SegmentResponse(BaseModel):
    """The masks of an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The model that answered.")
    image: ImageSize
    classes: list[str] = Field(description="All classes that the model marks; a background is none.")
    masks: list[Mask] = Field(description="One for each class that is in the image, in their order.")


def _ask(fields: SegmentFields, image: bytes) -> Question:
    parameters = {"output": OVERLAY} if fields.output == OVERLAY else {}
    return Question((Tensor.of_bytes(INPUT, [image]),), parameters)


def _answer(info: ModelInfo, response: InferResponse, fields: SegmentFields) -> Mapping[str, Any] | Blob:
    if fields.output == OVERLAY:
        return Blob(response.output(OVERLAY).data[0], CONTENT_TYPE, field=OVERLAY)
    return {"model": info.network or info.name, **orjson.loads(response.output(MASKS).data[0])}


SEGMENT = Task(
    name=TASK,
    path="/v1/segment",
    rpc="nonet.v1.Recognition/Segment",
    title="Segment an image",
    description="Takes a form with the file part `image`, JSON with the image in base64 or as a data: URL, "
    "or the bytes of the image alone (then the other fields stand in the query). Answers with a mask for "
    "each class that is in the image, in its own pixels; with `Accept: image/png`, with a PNG to be laid "
    "over it.",
    tag="Recognition",
    fields=SegmentFields,
    file=IMAGE,
    ask=_ask,
    answer=_answer,
    response=SegmentResponse,
    accepts={CONTENT_TYPE: {"output": OVERLAY}},
    rank="dice",
    importer=f"{__package__}.importing.importer:import_segmenter",
    page=Page("/segment", "Masks", __package__ or ""),
)
