"""What tasks that take one image share: the part of the request, an image's size, its preprocessing."""

from __future__ import annotations

import logging
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from nonet.runtime.errors import ModelRefused
from nonet.runtime.images import Preprocessing
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import FilePart

logger = logging.getLogger(__name__)

IMAGE: Final = FilePart(
    name="image",
    noun="image",
    example="photo.jpg",
    types=("image/*",),
    documented=("image/jpeg", "image/png", "image/webp"),
    description="The encoded image (JPEG, PNG, WebP, ...).",
)


class ImageSize(BaseModel):
    """Size of the image in pixels, as it is shown: after its EXIF orientation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    width: int = Field(ge=1)
    height: int = Field(ge=1)


def stated_preprocessing(info: ModelInfo, service: str) -> Preprocessing | None:
    """How the network's manifest prepares an image.

    None, and a line of the log, for a network without preprocessing, or one that does not batch: it gets no
    ``service``. Raises ModelRefused for a value out of range.
    """
    fields = info.details.get("preprocessing")
    if not fields or info.max_batch_size < 1:
        missing = "does not batch" if fields else "has no preprocessing in its manifest"
        logger.warning("model %s %s: it gets no %s service", info.name, missing, service)
        return None
    try:
        return Preprocessing.from_manifest(fields)
    except ValueError as error:
        raise ModelRefused(str(error)) from error
