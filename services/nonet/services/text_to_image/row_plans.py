"""What is asked for each picture of a request: the input tensors, checked against the version's recipe."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Final

from nonet.runtime.errors import InvalidArgument
from nonet.runtime.requests import InferRequest
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, TensorSpec
from nonet.services.text_to_image.picture_file import FORMATS
from nonet.services.text_to_image.prompts import check_prompt
from nonet.services.text_to_image.recipe import MOST_STEPS, Recipe, recipe_of
from nonet.services.text_to_image.sampling import LARGEST_SEED

__all__ = ["AUTO_SIZE", "INPUTS", "OWN_GUIDANCE", "OWN_STEPS", "RowPlan", "read_rows", "request_cost"]

OWN_STEPS: Final = 0
OWN_GUIDANCE: Final = -1.0
AUTO_SIZE: Final = "auto"
"""What stands for the version's own steps, guidance and size."""

_INPUTS: Final[tuple[tuple[str, DataType, Any], ...]] = (
    ("prompt", DataType.BYTES, None),
    ("negative_prompt", DataType.BYTES, b""),
    ("seed", DataType.INT64, 0),
    ("steps", DataType.INT32, OWN_STEPS),
    ("guidance_scale", DataType.FP32, OWN_GUIDANCE),
    ("size", DataType.BYTES, AUTO_SIZE.encode()),
    ("output_format", DataType.BYTES, b"png"),
    ("output_compression", DataType.INT32, 100),
    ("partial_images", DataType.INT32, 0),
)
"""Name, type and what is taken where it is left out."""

INPUTS: Final = tuple(
    TensorSpec(name, kind, (-1,), optional=default is not None) for name, kind, default in _INPUTS
)

MOST_PARTIAL: Final = 10


@dataclasses.dataclass(frozen=True, slots=True)
class RowPlan:
    """One picture: as in :class:`~nonet.services.text_to_image.task.GenerateFields`, nothing left open."""

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance_scale: float
    size: tuple[int, int]
    output_format: str
    output_compression: int
    partial_images: int

    @property
    def branches(self) -> int:
        """Rows of the network in each step: 1, or 2 with the unconditional one."""
        return 1 if self.guidance_scale == 1.0 else 2


def read_rows(request: InferRequest, recipe: Recipe) -> tuple[RowPlan, ...]:
    """The pictures that are asked for. Raises InvalidArgument naming the field."""
    columns: list[Sequence[Any]] = []
    rows = request.inputs[0].shape[0]
    for name, _, default in _INPUTS:
        tensor = request.input(name)
        columns.append([default] * rows if tensor is None else tensor.data.reshape(-1).tolist())
    return tuple(
        _plan(dict(zip((name for name, _, _ in _INPUTS), row, strict=True)), recipe)
        for row in zip(*columns, strict=True)
    )


def _plan(asked: dict[str, Any], recipe: Recipe) -> RowPlan:
    scale = recipe.guidance_scale if asked["guidance_scale"] == OWN_GUIDANCE else asked["guidance_scale"]
    steps = recipe.steps if asked["steps"] == OWN_STEPS else asked["steps"]
    if not 1 <= steps <= MOST_STEPS:
        raise InvalidArgument(f"steps must be from 1 to {MOST_STEPS}, got {steps}", param="steps")
    if not math.isfinite(scale) or not 0.0 <= scale <= 30.0:
        raise InvalidArgument(f"guidance_scale must be from 0 to 30, got {scale}", param="guidance_scale")
    for name, low, high in (
        ("seed", 0, LARGEST_SEED),
        ("output_compression", 0, 100),
        ("partial_images", 0, MOST_PARTIAL),
    ):
        if not low <= asked[name] <= high:
            raise InvalidArgument(f"{name} must be from {low} to {high}, got {asked[name]}", param=name)
    kind = _text(asked["output_format"], "output_format")
    if kind not in FORMATS:
        raise InvalidArgument(f"output_format must be one of {', '.join(FORMATS)}", param="output_format")
    negative = check_prompt(
        _text(asked["negative_prompt"], "negative_prompt"), "negative_prompt", required=False
    )
    if negative and scale == 1.0:
        raise InvalidArgument(
            "negative_prompt changes nothing at guidance_scale 1, which is this model's own or what you "
            "sent; send a larger guidance_scale, or no negative_prompt",
            param="negative_prompt",
        )
    return RowPlan(
        prompt=check_prompt(_text(asked["prompt"], "prompt"), "prompt", required=True),
        negative_prompt=negative,
        seed=asked["seed"],
        steps=steps,
        guidance_scale=float(scale),
        size=_size(_text(asked["size"], "size"), recipe),
        output_format=kind,
        output_compression=asked["output_compression"],
        partial_images=asked["partial_images"],
    )


def _size(text: str, recipe: Recipe) -> tuple[int, int]:
    if text == AUTO_SIZE:
        return recipe.sizes[0]
    width, _, height = text.partition("x")
    size = (int(width), int(height)) if _is_side(width) and _is_side(height) else None
    if size is None or size not in recipe.sizes:
        known = ", ".join(f"{width}x{height}" for width, height in recipe.sizes)
        raise InvalidArgument(
            f"size {text[:40]!r} is not one that this model makes: {AUTO_SIZE}, {known}",
            param="size",
            code="SIZE_NOT_OFFERED",
        )
    return size


def _is_side(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 6


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise InvalidArgument(f"{name} is not UTF-8", param=name) from None


def request_cost(request: InferRequest, info: ModelInfo) -> float:
    """Rows of the network over all steps, in units of one step of one picture as the version makes it; making
    pixels of a picture, or of a partial one, counts as many steps as it was measured to take.

    Raises InvalidArgument for a request that the version does not take.
    """
    recipe = recipe_of(info)
    width, height = recipe.sizes[0]
    unit = (2 if recipe.guided else 1) * width * height
    plans = read_rows(request, recipe)
    decoding = float(info.details.get("decoding_cost", 0.0)) * (2 if recipe.guided else 1)
    return sum(
        (plan.steps * plan.branches + decoding * (1 + plan.partial_images))
        * plan.size[0]
        * plan.size[1]
        / unit
        for plan in plans
    )
