"""Errors and model cards of the task API, as types: the source of their OpenAPI description."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    """A type with these fields and no others, which nobody changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ErrorDetail(Strict):
    """What went wrong, in OpenAI's shape."""

    message: str = Field(description="One sentence: the field, what was wrong, what is accepted.")
    type: str = Field(description="Class of the error, e.g. invalid_request_error.")
    param: str | None = Field(description="The field at fault, if there is one.")
    code: str = Field(description="Exact cause for programs, e.g. IMAGE_TRUNCATED.")


class ErrorEnvelope(Strict):
    """An error of the task API."""

    error: ErrorDetail


class ModelCard(Strict):
    """A model or a family that can be named in the task API."""

    id: str = Field(description="What to send as `model`.")
    object: Literal["model"]
    created: int = Field(description="Seconds since the epoch; 0 if unknown.")
    owned_by: str
    task: str = Field(description="e.g. classification.")
    family: str = Field(description="Name of the family it belongs to, or is; empty if none.")
    variants: list[str] = Field(description="Members of a family, best first; empty for a single model.")
    versions: list[str] = Field(description="Versions that are ready.")
    devices: list[str] = Field(description="Devices that can run it now.")
    quality: dict[str, float] = Field(description="Measured on unseen data, e.g. top1.")
    classes: int = Field(ge=0, description="Number of class names; 0 if it has none.")
    service: str = Field(description="Name of the Open Inference Protocol model that takes encoded images.")
    network: str = Field(description="Name of the Open Inference Protocol model that takes tensors.")
    details: dict[str, Any] = Field(description="Licence, source system, engine, precision and the like.")


class ModelList(Strict):
    """All models and families, in OpenAI's list shape."""

    object: Literal["list"]
    data: list[ModelCard]
