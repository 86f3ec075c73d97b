"""What the grounding service can be asked: the boxes that expressions mean in an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.requests import InferRequest, InferResponse
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import WHOLE, FilePart, ModelChoice, Page, Question, Service, ServiceLimits, Task
from nonet.runtime.tensors import Tensor
from nonet.services.grounding.derive import derive
from nonet.services.grounding.expressions import check_expressions, listed
from nonet.services.grounding.names import (
    BOXES,
    DETECTOR,
    EXPRESSIONS,
    IMAGE,
    LABELS,
    LONGEST,
    MOST_EXPRESSIONS,
    MOST_INSTANCES,
    NOTHING,
    QUALITY,
    SCORES,
    SIZE,
    TASK,
)
from nonet.services.grounding.regions import COMPOSITION

__all__ = ["GROUND", "SERVICE"]

_PART: Final = FilePart(
    name=IMAGE,
    noun="image",
    example="photo.jpg",
    types=("image/*",),
    documented=("image/jpeg", "image/png", "image/webp"),
    description="The encoded image (JPEG, PNG, WebP, ...).",
)

Expressions = Annotated[
    list[str],
    BeforeValidator(lambda value: check_expressions(value) if isinstance(value, list) else value),
    BeforeValidator(listed),
    Field(
        min_length=1,
        max_length=MOST_EXPRESSIONS,
        description=f"What is meant, each at most {LONGEST} characters, e.g. `the left dog`. In a form: the "
        "field repeated, or one JSON array.",
    ),
]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class GroundFields:
    """What goes with an image in which expressions mean something."""

    expressions: Expressions
    model: ModelChoice = "auto"
    detector: Annotated[
        str,
        Field(
            max_length=256,
            description="The detection model that proposes regions: one model's name or a family's; empty "
            "for the one that the grounding model was trained with.",
        ),
    ] = ""
    quality: Annotated[
        Literal["fast", "best"],
        Field(
            description="`best` looks at the mirrored image and four tiles of it, too; six times the work."
        ),
    ] = "fast"
    instances: Annotated[
        int,
        Field(
            ge=1,
            le=MOST_INSTANCES,
            description="How many boxes an expression may get; above 1 they stand in `instances`.",
        ),
        WHOLE,
    ] = 1
    least_score: Annotated[
        float, Field(ge=0, le=1, allow_inf_nan=False, description="Boxes with a lower score are left out.")
    ] = 0.0
    nothing_threshold: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="From which score of `nothing` no box is the answer; 1 always gives one where there "
            "are regions. By default the model's own.",
        ),
    ] = None


class GroundSize(BaseModel):
    """Size of the image in pixels, as it is shown: after its EXIF orientation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1)
    height: int = Field(ge=1)


class Instance(BaseModel):
    """One of several things that an expression may mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    box: list[float] = Field(min_length=4, max_length=4)
    score: float = Field(ge=0, le=1)
    label: str = Field(description="What the detector calls it.")


class Grounding(BaseModel):
    """What one expression means."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    expression: str
    box: list[float] | None = Field(
        description="Corners x1, y1, x2, y2 in pixels of the image as it is shown, inside it; null if "
        "nothing in it is meant."
    )
    score: float = Field(
        ge=0, le=1, description="Probability that the box is meant; without one, that nothing is."
    )
    label: str | None = Field(description="What the detector calls it; null without a box.")
    nothing: float = Field(ge=0, le=1, description="Probability that nothing in the image is meant.")
    instances: list[Instance] | None = Field(
        default=None, description="All boxes, best first, where more than one was asked for."
    )


class GroundResponse(BaseModel):
    """What expressions mean in an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The model that answered.")
    image: GroundSize
    groundings: list[Grounding] = Field(description="In the order of the expressions.")


def _ask(fields: GroundFields, image: bytes) -> Question:
    texts = [text.encode() for text in fields.expressions]
    parameters = {DETECTOR: fields.detector} if fields.detector else {}
    if fields.quality != "fast":
        parameters[QUALITY] = fields.quality
    inputs = (Tensor.of_bytes(EXPRESSIONS, texts, (1, len(texts))), Tensor.of_bytes(IMAGE, [image]))
    return Question(inputs, parameters)


def _answer(info: ModelInfo, response: InferResponse, fields: GroundFields) -> Mapping[str, Any]:
    values = {tensor.name: tensor.data[0] for tensor in response.outputs}
    width, height = values[SIZE].tolist()
    threshold = fields.nothing_threshold
    if threshold is None:
        threshold = float(info.details.get(NOTHING, 0.5))
    return {
        "model": info.network or info.name,
        "image": {"width": width, "height": height},
        "groundings": [
            _grounding(
                expression,
                [values[name][row] for name in (BOXES, SCORES, LABELS, NOTHING)],
                threshold,
                fields,
            )
            for row, expression in enumerate(fields.expressions)
        ],
    }


def _grounding(
    expression: str, found: Sequence[Any], threshold: float, fields: GroundFields
) -> dict[str, Any]:
    boxes, scores, labels, nothing = found
    instances = [
        {"box": box, "score": score, "label": label.decode("utf-8")}
        for box, score, label in zip(boxes.tolist(), scores.tolist(), labels.tolist(), strict=True)
        if score > 0 and score >= fields.least_score
    ][: fields.instances]
    none = float(nothing)
    if none >= threshold and threshold < 1:
        instances = []
    best = instances[0] if instances else {"box": None, "score": none, "label": None}
    answer = {"expression": expression, **best, NOTHING: none}
    return answer | {"instances": instances} if fields.instances > 1 else answer


def _cost(request: InferRequest, info: ModelInfo) -> float:
    """A row of the measured sample is a picture with one expression."""
    expressions = request.input(EXPRESSIONS)
    return float(expressions.data.size) if expressions is not None else 1.0


GROUND = Task(
    name=TASK,
    path="/v1/ground",
    rpc="nonet.v1.Grounding/Ground",
    title="Find what expressions mean in an image",
    description="Takes a form with the file part `image`, or JSON with the image in base64 or as a data: "
    "URL, and the `expressions`. Each gets the box that it most probably means, or null if nothing there is "
    "meant. Regions are proposed by a detection model of the same server; what was found in an image is kept "
    "for the next expression about it.",
    tag="Grounding",
    fields=GroundFields,
    file=_PART,
    ask=_ask,
    answer=_answer,
    response=GroundResponse,
    rank="accuracy",
    cost=_cost,
    page=Page("/ground", "Expressions", __package__ or ""),
    importer=f"{__package__}.importing:import_grounder",
    composition=COMPOSITION,
)


def _derive(limits: ServiceLimits) -> Callable[[Servable], Sequence[Servable]]:
    return lambda network: derive(network, limits)


SERVICE = Service(
    name="grounding",
    tasks=(GROUND,),
    derive=_derive,
    opener=f"{__package__}.open_models:open_checkpoint",
)
