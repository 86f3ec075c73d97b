"""What the toy service can be asked: how bright an image is, at once, in steps, or as a job."""

from __future__ import annotations

import hashlib
import importlib.resources
import shutil
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import (
    WHOLE,
    Accepted,
    Event,
    FilePart,
    ModelChoice,
    Page,
    Question,
    Service,
    Task,
    Upload,
    Work,
)
from nonet.runtime.tensors import Tensor
from nonet.services.toy.contrast import COMPARE, CONTRAST_TASK, ContrastServable
from nonet.services.toy.servable import INPUT, TASK, derive


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class MeasureFields:
    """What goes with an image to measure."""

    model: ModelChoice = "auto"
    scale: Annotated[float, Field(ge=0, le=10, description="What the brightness is multiplied by.")] = 1.0
    steps: Annotated[int, Field(ge=1, le=3, description="How many partial answers there are."), WHOLE] = 1
    stream: Annotated[bool, Field(description="Whether the partial answers are wanted.")] = False


class MeasureResponse(BaseModel):
    """How bright an image is."""

    model: str
    brightness: float = Field(description="The mean byte times the scale.")
    step: int = Field(description="Which of the answers it is, from 1.")


def _ask(fields: MeasureFields, image: bytes) -> Question:
    return Question((Tensor.of_bytes(INPUT, [image]),), {"scale": fields.scale, "steps": fields.steps})


def _answer(info: ModelInfo, response: InferResponse, fields: MeasureFields) -> Mapping[str, Any]:
    brightness = float(response.output("brightness").data[0])
    return {"model": info.network, "brightness": brightness, "step": response.parameters["step"]}


def _event(fields: MeasureFields, info: ModelInfo, response: InferResponse, number: int) -> Event:
    return Event("measured" if response.final else "measuring", _answer(info, response, fields))


def _accept(upload: Upload) -> Accepted:
    shutil.copyfile(upload.path, upload.folder / "image")
    digest = hashlib.sha256((upload.folder / "image").read_bytes()).hexdigest()
    return Accepted({"scale": upload.fields.scale}, f"{digest} {upload.fields.scale}")


def _cost(request: InferRequest, info: ModelInfo) -> float:
    return float(request.parameters.get("steps", 1))


MEASURE = Task(
    name=TASK,
    path="/v1/toy/measure",
    rpc="toy.v1.Toy/Measure",
    stream_rpc="WatchMeasure",
    title="Measure an image",
    description="How bright an image is.",
    tag="Toy",
    fields=MeasureFields,
    file=FilePart(
        name="image",
        noun="image",
        example="photo.jpg",
        types=("image/*",),
        documented=("image/png",),
        description="An image.",
    ),
    ask=_ask,
    answer=_answer,
    event=_event,
    response=MeasureResponse,
    rank="truth",
    cost=_cost,
    work=Work(kind="toy.measure", run="nonet.services.toy.job:measure", accept=_accept, rpc="SubmitMeasure"),
    page=Page("/toy", "Toy", "nonet.services.toy"),
)


def _derive(network: Servable) -> Sequence[Servable]:
    return (ContrastServable(network),) if network.info.task == CONTRAST_TASK else derive(network)


SERVICE = Service(
    name="toy",
    tasks=(MEASURE, COMPARE),
    derive=lambda limits: _derive,
    descriptors=importlib.resources.files("nonet.services.toy").joinpath("descriptors.binpb").read_bytes(),
)
