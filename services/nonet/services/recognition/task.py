"""What the recognition service can be asked; classification is here, the others in folders of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.images import ImageLimits
from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import WHOLE, ModelChoice, Page, Question, Service, ServiceLimits, Task
from nonet.runtime.tensors import Array, Tensor
from nonet.services.recognition.classify import INPUT
from nonet.services.recognition.derive import TASK, derive
from nonet.services.recognition.detection.derive import derive as derive_detect
from nonet.services.recognition.detection.task import DETECT
from nonet.services.recognition.distillation.task import DISTIL
from nonet.services.recognition.faces.derive import derive_faces
from nonet.services.recognition.faces.task import EMBED, VERIFY
from nonet.services.recognition.segmentation.derive import derive as derive_segment
from nonet.services.recognition.segmentation.task import SEGMENT
from nonet.services.recognition.whole_image import IMAGE

__all__ = ["CLASSIFY", "SERVICE", "best_classes"]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class ClassifyFields:
    """What goes with an image to classify."""

    model: ModelChoice = "auto"
    top_k: Annotated[
        int,
        Field(ge=1, le=1000, description="How many classes to return, best first; at most all there are."),
        WHOLE,
    ] = 5


class Prediction(BaseModel):
    """One class and how sure the model is of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    index: int = Field(ge=0, description="Index of the class in the model's output.")
    label: str = Field(description="Name of the class; the index as text if the model names none.")
    score: float = Field(ge=0, le=1, description="Probability: the scores of all classes add up to 1.")


class ClassifyResponse(BaseModel):
    """The best classes of an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The model that answered.")
    predictions: list[Prediction] = Field(description="Best first.")


def best_classes(scores: Array, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The ``count`` best of ``scores`` (C,), best first; of equal scores the lower index first.

    A class without a label is called by its index. The scores are exact: float32 values as float64.
    """
    count = min(count, scores.size)
    if count * 4 < scores.size:
        # Everything at least as good as the count-th best, so that ties are broken the same way as below.
        threshold = np.partition(scores, scores.size - count)[scores.size - count]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(scores.size)
    order = candidates[np.argsort(-scores[candidates], kind="stable")[:count]]
    return [
        {"index": index, "label": labels[index] if index < len(labels) else str(index), "score": score}
        for index, score in zip(order.tolist(), scores[order].tolist(), strict=True)
    ]


def _ask(fields: ClassifyFields, image: bytes) -> Question:
    return Question((Tensor.of_bytes(INPUT, [image]),))


def _answer(info: ModelInfo, response: InferResponse, fields: ClassifyFields) -> Mapping[str, Any]:
    scores = response.outputs[0].data.reshape(-1)
    return {
        "model": info.network or info.name,
        "predictions": best_classes(scores, info.labels, fields.top_k),
    }


CLASSIFY = Task(
    name=TASK,
    path="/v1/classify",
    rpc="nonet.v1.Recognition/Classify",
    title="Classify an image",
    description="Takes a form with the file part `image`, JSON with the image in base64 or as a data: URL, "
    "or the bytes of the image alone (then `model` and `top_k` stand in the query).",
    tag="Recognition",
    fields=ClassifyFields,
    file=IMAGE,
    ask=_ask,
    answer=_answer,
    response=ClassifyResponse,
    rank="top1",
    page=Page("/", "Photos", __package__ or ""),
    importer=f"{__package__}.importing.importer:import_classifier",
)


#: What makes the service of a network, by the network's task.
_DERIVE = {
    TASK: derive,
    DETECT.name: derive_detect,
    SEGMENT.name: derive_segment,
    EMBED.name: derive_faces,
}


def _derive(limits: ServiceLimits) -> Callable[[Servable], Sequence[Servable]]:
    bounds = ImageLimits(encoded_bytes=limits.image_bytes, pixels=limits.image_pixels)

    def derived(network: Servable) -> Sequence[Servable]:
        make = _DERIVE.get(network.info.task)
        return make(network, bounds) if make is not None else ()

    return derived


SERVICE = Service(
    name="recognition", tasks=(CLASSIFY, DETECT, SEGMENT, EMBED, VERIFY, DISTIL), derive=_derive
)
