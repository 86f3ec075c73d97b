"""How much brighter an image's brightest byte is than the image, which another served model is asked for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.composition import Ask, Composition
from nonet.runtime.errors import InvalidArgument, NotFound
from nonet.runtime.requests import InferRequest, InferResponse, Outcome
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import FilePart, ModelChoice, Question, Task
from nonet.runtime.tensors import DataType, Tensor, TensorSpec
from nonet.services.toy.servable import pause, wait

CONTRAST_TASK = "contrast"
IMAGE, BRIGHTNESS = "image", "brightness"


class ContrastServable:
    """``image`` BYTES [N] and ``brightness`` FP64 [N], which the gateway fills in, to ``contrast`` FP64 [N]:
    the largest byte minus the brightness."""

    def __init__(self, network: Servable) -> None:
        info = network.info
        self.info = ModelInfo(
            name=f"contrast.{info.name}",
            version=info.version,
            digest=f"{CONTRAST_TASK} {info.digest}",
            platform="nonet_service",
            inputs=(
                TensorSpec(IMAGE, DataType.BYTES, (-1,)),
                TensorSpec(BRIGHTNESS, DataType.FP64, (-1,), optional=True),
            ),
            outputs=(TensorSpec("contrast", DataType.FP64, (-1,)),),
            max_batch_size=4,
            task=CONTRAST_TASK,
            network=info.name,
        )

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        pause(self.info.network)
        return [self._answer(request) for request in batch]

    def _answer(self, request: InferRequest) -> Outcome:
        images, brightness = request.input(IMAGE), request.input(BRIGHTNESS)
        assert images is not None
        if brightness is None:
            return InvalidArgument("brightness is missing", param=BRIGHTNESS)
        for image in images.data:
            if image.startswith(b"once:"):
                _wait_once(Path(image[5:].decode()))
        most = np.array([max(image) for image in images.data], np.float64)
        tensor = Tensor("contrast", DataType.FP64, most - brightness.data)
        return InferResponse(self.info.name, self.info.version, (tensor,))

    def sample_request(self, rows: int) -> InferRequest:
        brightness = Tensor(BRIGHTNESS, DataType.FP64, np.ones(rows))
        return InferRequest(self.info.name, (Tensor.of_bytes(IMAGE, [b"sample"] * rows), brightness))

    def warm_up(self) -> None:
        self.execute([self.sample_request(1)])

    def close(self) -> None:
        """Nothing is held."""


def _wait_once(file: Path) -> None:
    """The first execution waits until ``file`` is there; a second one does not."""
    try:
        file.with_suffix(".taken").touch(exist_ok=False)
    except FileExistsError:
        return
    wait(file)


async def _complete(request: InferRequest, info: ModelInfo, ask: Ask) -> InferRequest:
    image = request.input(IMAGE)
    if image is None or request.input(BRIGHTNESS) is not None:
        return request
    beside = str(request.parameters.get("beside", "auto"))
    try:
        told = await ask(
            (image,), {"scale": 1.0, "steps": 1}, task=str(request.parameters["task"]), model=beside
        )
    except NotFound as error:
        raise NotFound(error.message, param="beside", code=error.code) from None
    return dataclasses.replace(request, inputs=(*request.inputs, told.response.output("brightness")))


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class CompareFields:
    """What goes with an image to compare."""

    model: ModelChoice = "auto"
    beside: Annotated[str, Field(description="The model that tells the brightness.")] = "auto"
    task: Annotated[str, Field(description="The task of that model.")] = "brightness"


class CompareResponse(BaseModel):
    """How much brighter the brightest byte is."""

    model: str
    contrast: float = Field(description="The largest byte minus the mean byte.")


def _ask(fields: CompareFields, image: bytes) -> Question:
    return Question((Tensor.of_bytes(IMAGE, [image]),), {"beside": fields.beside, "task": fields.task})


def _answer(info: ModelInfo, response: InferResponse, fields: CompareFields) -> Mapping[str, Any]:
    return {"model": info.network, "contrast": float(response.output("contrast").data[0])}


COMPARE = Task(
    name=CONTRAST_TASK,
    path="/v1/toy/compare",
    rpc="toy.v1.Toy/Compare",
    title="Compare the brightest byte with the image",
    description="Asks a model of the task brightness first.",
    tag="Toy",
    fields=CompareFields,
    file=FilePart(
        name=IMAGE,
        noun="image",
        example="photo.jpg",
        types=("image/*",),
        documented=("image/png",),
        description="An image.",
    ),
    ask=_ask,
    answer=_answer,
    response=CompareResponse,
    composition=Composition(asks=("brightness", CONTRAST_TASK), complete=_complete),
)
