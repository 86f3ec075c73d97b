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


class PlacementDevice(Strict):
    """A device that might have computed an answer, as predicted when the request came."""

    device: str
    predicted_ms: float | None = Field(
        description="Milliseconds to the answer; null if it cannot compute it."
    )
    joules: float | None = Field(description="Energy; 0 where the device's watts are not known.")
    cost: float | None = Field(description="Price; 0 where the device's price is not known.")
    excluded: Literal["", "unhealthy", "not_served", "capability", "deadline", "ejected"] = Field(
        description="What speaks against it; empty if nothing."
    )


class PlacementCandidate(Strict):
    """A model that might have answered."""

    model: str
    version: str
    quality: float | None = Field(description="Its figure; null if it was not measured.")
    predicted_ms: float | None = Field(description="Milliseconds to the answer on its best device.")
    chosen: bool
    excluded: Literal[
        "",
        "accuracy_floor",
        "capability",
        "crowded",
        "deadline",
        "ejected",
        "not_best",
        "not_served",
        "unhealthy",
    ] = Field(description="What speaks against it; empty if nothing.")
    devices: list[PlacementDevice] = Field(default=[], description="Left out where a header is too short.")


class Placement(Strict):
    """Why a request was placed where it was."""

    model: str = Field(description="The one that was chosen.")
    version: str
    device: str = Field(default="", description="Where it was computed; `cache` for an answer that was kept.")
    joules: float = Field(default=0.0, description="Energy of this request's part of its batch.")
    cost: float = Field(default=0.0, description="Price of this request's part of its batch.")
    figure: str = Field(description="The quality figure that orders the family.")
    floor: float | None = Field(description="The least of it that will do (X-Accuracy-Floor).")
    deadline_ms: float | None = Field(description="Milliseconds that were left; null without a deadline.")
    candidates: list[PlacementCandidate] = Field(description="Best quality first.")
    truncated: bool = Field(default=False, description="Whether something did not fit into a header.")
