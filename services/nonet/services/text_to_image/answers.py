"""What callers are told of the pictures: OpenAI's images response and events, ours beside theirs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import Event

__all__ = ["ImagesResponse", "images_answer", "images_events", "picture_message"]

_STRICT: Final = ConfigDict(extra="forbid", frozen=True)


class TextTokens(BaseModel):
    """Of what the input tokens are."""

    model_config = _STRICT

    text_tokens: int = Field(ge=0)
    image_tokens: int = Field(ge=0, description="Always 0: no picture is sent.")


class ImageTokens(BaseModel):
    """Of what the output tokens are."""

    model_config = _STRICT

    image_tokens: int = Field(ge=0)
    text_tokens: int = Field(ge=0, description="Always 0.")


class Usage(BaseModel):
    """How much was read and made. A picture counts the places of its latents: 64 for 64x64 pixels."""

    model_config = _STRICT

    input_tokens: int = Field(
        ge=0, description="Tokens of the prompt that the network sees, for each picture."
    )
    input_tokens_details: TextTokens
    output_tokens: int = Field(ge=0)
    output_tokens_details: ImageTokens
    total_tokens: int = Field(ge=0)


class GeneratedImage(BaseModel):
    """One picture."""

    model_config = _STRICT

    b64_json: str = Field(description="The file in base64; where it comes from stands inside.")
    seed: int = Field(
        ge=0, description="Sent alone, with the same fields and n = 1, it gives this picture again."
    )


class ImagesResponse(BaseModel):
    """The pictures, in OpenAI's shape."""

    model_config = _STRICT

    created: int = Field(description="Seconds since the epoch.")
    data: list[GeneratedImage]
    background: Literal["opaque"]
    output_format: Literal["png", "jpeg", "webp"]
    size: str = Field(description="Width and height in pixels, e.g. 64x64.")
    usage: Usage
    model: str = Field(description="The model that answered; `auto` takes a quicker one when time is short.")
    steps: int = Field(ge=1, description="Steps of each picture.")
    guidance_scale: float = Field(ge=0, description="Weight of the prompt; 1 leaves it alone.")
    prompt_cut: bool = Field(description="Whether the prompt has more tokens than the model looks at.")


def images_answer(info: ModelInfo, response: InferResponse, output_format: str) -> Mapping[str, Any]:
    """The final answer; ``b64_json`` holds bytes."""
    columns = _columns(response)
    shared = _shared(info, columns, 0, output_format)
    return {
        "created": int(time.time()),
        "data": [
            {"b64_json": image, "seed": seed}
            for image, seed in zip(columns["image"], columns["seed"], strict=True)
        ],
        **shared,
        "usage": _usage(info, columns, range(len(columns["image"]))),
    }


def images_events(info: ModelInfo, response: InferResponse, output_format: str) -> Sequence[Event]:
    """One event for each picture of an answer: partial pictures while they form, at last the whole ones."""
    columns = _columns(response)
    name = "image_generation.completed" if response.final else "image_generation.partial_image"
    events = []
    for row, image in enumerate(columns["image"]):
        data = {
            "type": name,
            "b64_json": image,
            "created_at": int(time.time()),
            "quality": "auto",
            **_shared(info, columns, row, output_format),
            "index": row,
            "seed": columns["seed"][row],
            "step": columns["step"][row],
        }
        if response.final:
            data["usage"] = _usage(info, columns, (row,))
        else:
            data["partial_image_index"] = columns["partial_image_index"][row]
        events.append(Event(name, data))
    return events


def picture_message(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same for a gRPC message, which carries the bytes as they are."""
    renamed = {**values}
    if "b64_json" in renamed:
        renamed["image"] = renamed.pop("b64_json")
    if "data" in renamed:
        renamed["data"] = [{"image": each["b64_json"], "seed": each["seed"]} for each in renamed["data"]]
    return renamed


def _columns(response: InferResponse) -> dict[str, list[Any]]:
    return {tensor.name: tensor.data.tolist() for tensor in response.outputs}


def _shared(
    info: ModelInfo, columns: Mapping[str, list[Any]], row: int, output_format: str
) -> dict[str, Any]:
    width, height = columns["size"][row]
    return {
        "background": "opaque",
        "output_format": output_format,
        "size": f"{width}x{height}",
        "model": info.network or info.name,
        "steps": columns["steps"][row],
        "guidance_scale": round(columns["guidance_scale"][row], 6),  # FP32 in, as it was sent out
        "prompt_cut": columns["prompt_cut"][row],
    }


def _usage(info: ModelInfo, columns: Mapping[str, list[Any]], rows: Sequence[int]) -> dict[str, Any]:
    reduction = int((info.details.get("source") or {}).get("reduction", 1))
    read = sum(columns["prompt_tokens"][row] for row in rows)
    made = sum(columns["size"][row][0] * columns["size"][row][1] // reduction**2 for row in rows)
    return {
        "input_tokens": read,
        "input_tokens_details": {"text_tokens": read, "image_tokens": 0},
        "output_tokens": made,
        "output_tokens_details": {"image_tokens": made, "text_tokens": 0},
        "total_tokens": read + made,
    }
