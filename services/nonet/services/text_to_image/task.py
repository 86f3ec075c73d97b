"""What the text-to-image service can be asked: pictures of a prompt, whole or while they form."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from pydantic.functional_validators import AfterValidator

from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import (
    WHOLE,
    Event,
    ModelChoice,
    Page,
    Question,
    Service,
    ServiceLimits,
    Task,
)
from nonet.runtime.tensors import Array, DataType, Tensor
from nonet.services.text_to_image.answers import (
    ImagesResponse,
    images_answer,
    images_events,
    picture_message,
)
from nonet.services.text_to_image.derive import TASK, derive
from nonet.services.text_to_image.prompts import LONGEST, check_prompt
from nonet.services.text_to_image.recipe import MOST_STEPS
from nonet.services.text_to_image.row_plans import AUTO_SIZE, OWN_GUIDANCE, OWN_STEPS, request_cost
from nonet.services.text_to_image.servable import MOST_PICTURES

__all__ = ["GENERATE", "SERVICE", "GenerateFields"]

_LARGEST_SEED: Final = 2**32 - 1
_MOST_PARTIAL: Final = 3


def _or(default: Any) -> BeforeValidator:
    """OpenAI's clients send null for what is not given."""
    return BeforeValidator(lambda value: default if value is None else value)


def _prompt(name: str, *, required: bool) -> AfterValidator:
    return AfterValidator(lambda text: check_prompt(text, name, required=required))


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class GenerateFields:
    """A prompt, and how its pictures are made. The fields of OpenAI's API and four of ours (`seed`, `steps`,
    `guidance_scale`, `negative_prompt`)."""

    prompt: Annotated[
        str,
        Field(min_length=1, max_length=LONGEST, description="What the picture shows."),
        _prompt("prompt", required=True),
    ]
    model: Annotated[ModelChoice, _or("auto")] = "auto"
    n: Annotated[
        int,
        Field(ge=1, le=MOST_PICTURES, description="How many pictures; their seeds follow each other."),
        WHOLE,
        _or(1),
    ] = 1
    size: Annotated[
        str,
        Field(
            max_length=16,
            description="Width and height in pixels, e.g. 64x64, one that the model makes; `auto`: its own.",
        ),
        _or(AUTO_SIZE),
    ] = AUTO_SIZE
    response_format: Annotated[
        Literal["b64_json"],
        Field(description="Pictures come in the answer: nothing is kept that a URL could lead to."),
        _or("b64_json"),
    ] = "b64_json"
    output_format: Annotated[
        Literal["png", "jpeg", "webp"], Field(description="Of the files."), _or("png")
    ] = "png"
    output_compression: Annotated[
        int,
        Field(ge=0, le=100, description="Quality of JPEG and WebP; PNG loses nothing."),
        WHOLE,
        _or(100),
    ] = 100
    stream: Annotated[bool, Field(description="Whether pictures come as events."), _or(False)] = False
    partial_images: Annotated[
        int,
        Field(ge=0, le=_MOST_PARTIAL, description="With `stream`: pictures that are shown while one forms."),
        WHOLE,
        _or(0),
    ] = 0
    seed: Annotated[
        int | None,
        Field(
            ge=0,
            le=_LARGEST_SEED,
            description="The same seed with the same fields gives the same pixels; without one it is drawn.",
        ),
        WHOLE,
    ] = None
    steps: Annotated[
        int | None,
        Field(ge=1, le=MOST_STEPS, description="Steps of a picture; without it the model's own."),
        WHOLE,
    ] = None
    guidance_scale: Annotated[
        float | None,
        Field(
            ge=0,
            le=30,
            allow_inf_nan=False,
            description="Weight of the prompt against the negative prompt; 1 is none, and half the work; "
            "without it the model's own.",
        ),
    ] = None
    negative_prompt: Annotated[
        str,
        Field(max_length=LONGEST, description="What the picture is led away from; needs guidance."),
        _or(""),
        _prompt("negative_prompt", required=False),
    ] = ""
    quality: Annotated[
        Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"],
        Field(description="OpenAI's; changes nothing: `steps` is what does."),
        _or("auto"),
    ] = "auto"
    background: Annotated[
        Literal["auto", "opaque"],
        Field(description="OpenAI's; every picture is opaque."),
        _or("auto"),
    ] = "auto"
    style: Annotated[
        Literal["vivid"],
        Field(description="OpenAI's default is taken and changes nothing; say a style in the prompt."),
        _or("vivid"),
    ] = "vivid"
    moderation: Annotated[
        Literal["auto", "low"],
        Field(description="OpenAI's; changes nothing: what is withheld is the operator's setting."),
        _or("auto"),
    ] = "auto"
    user: Annotated[str, Field(max_length=512, description="OpenAI's; taken and not kept."), _or("")] = ""
    safety_identifier: Annotated[
        str, Field(max_length=512, description="OpenAI's; taken and not kept."), _or("")
    ] = ""


def _ask(fields: GenerateFields, file: None) -> Question:
    seed = secrets.randbelow(_LARGEST_SEED + 1) if fields.seed is None else fields.seed
    rows = fields.n
    texts = {
        "prompt": fields.prompt,
        "negative_prompt": fields.negative_prompt,
        "size": fields.size,
        "output_format": fields.output_format,
    }
    numbers: dict[str, Array] = {
        "seed": seed + np.arange(rows, dtype=np.int64),
        "steps": np.full(rows, fields.steps or OWN_STEPS, np.int32),
        "guidance_scale": np.full(
            rows, OWN_GUIDANCE if fields.guidance_scale is None else fields.guidance_scale, np.float32
        ),
        "output_compression": np.full(rows, fields.output_compression, np.int32),
        "partial_images": np.full(rows, fields.partial_images if fields.stream else 0, np.int32),
    }
    return Question(
        (
            *(Tensor.of_bytes(name, [text.encode()] * rows) for name, text in texts.items()),
            *(Tensor(name, DataType.of(values), values) for name, values in numbers.items()),
        ),
        drawn=fields.seed is None,
    )


def _answer(info: ModelInfo, response: InferResponse, fields: GenerateFields) -> Mapping[str, Any]:
    return images_answer(info, response, fields.output_format)


def _events(fields: GenerateFields, info: ModelInfo, response: InferResponse, number: int) -> Sequence[Event]:
    return images_events(info, response, fields.output_format)


def _from_message(values: dict[str, Any]) -> dict[str, Any]:
    """Partial pictures are for who streams; a message has no field that says so beside asking for some."""
    return {**values, "stream": True} if "partial_images" in values else values


GENERATE = Task(
    name=TASK,
    path="/v1/images/generations",
    rpc="nonet.v1.TextToImage/GenerateImages",
    stream_rpc="Generate",
    title="Make pictures of a prompt",
    description="OpenAI's image API: their clients work unchanged. With `stream` the answer is server-sent "
    "events, `image_generation.partial_image` while a picture forms and `image_generation.completed` for "
    "each.",
    tag="Pictures",
    fields=GenerateFields,
    ask=_ask,
    answer=_answer,
    event=_events,
    response=ImagesResponse,
    from_message=_from_message,
    to_message=picture_message,
    rank="retrieval",
    cost=request_cost,
    max_bytes=64 << 10,
    page=Page("/pictures", "Pictures", __package__ or ""),
    statuses=(501,),
    importer=f"{__package__}.importing.importer:import_pipeline",
)


def _derive(limits: ServiceLimits) -> Callable[[Servable], Sequence[Servable]]:
    return lambda network: derive(network, limits)


SERVICE = Service(name="text_to_image", tasks=(GENERATE,), derive=_derive)
