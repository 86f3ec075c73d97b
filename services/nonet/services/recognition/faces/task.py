"""What can be asked about faces: the largest face as a vector, and whether two faces are of one person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import FilePart, ModelChoice, Page, Question, Task
from nonet.runtime.tensors import Tensor
from nonet.services.recognition.faces.derive import TASK, threshold_of
from nonet.services.recognition.faces.servable import CROP, INPUT, NAMES
from nonet.services.recognition.whole_image import ImageSize

__all__ = ["EMBED", "VERIFY"]

Crop = Annotated[
    bool,
    Field(
        description="The picture is a face and nothing else, placed as the model's manifest says: none is "
        "looked for."
    ),
]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class EmbedFields:
    """What goes with an image whose face is described."""

    model: ModelChoice = "auto"
    crop: Crop = False


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class VerifyFields:
    """What goes with two images whose faces are compared."""

    model: ModelChoice = "auto"
    crop: Crop = False
    threshold: Annotated[
        float | None,
        Field(
            ge=-1,
            le=1,
            description="The similarity from which two faces are of one person; the model's own by default.",
        ),
    ] = None


class ImagePoint(BaseModel):
    """A place in the upright image, in pixels from its upper left corner."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    x: float
    y: float


class Face(BaseModel):
    """The face of an image that was described."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    box: list[float] = Field(description="[x1, y1, x2, y2] in pixels of the upright image.")
    score: float | None = Field(description="How sure the detector is, 0 to 1; null for a crop.")
    landmarks: list[ImagePoint] = Field(
        description="The eye on the left of the image, the other eye, the nose, the left and the right "
        "corner of the mouth; none for a crop."
    )
    aligned: bool = Field(description="Whether the face was brought upright by its landmarks.")
    found: int = Field(ge=1, description="How many faces were found; this is the largest.")
    image: ImageSize


class EmbedResponse(BaseModel):
    """A face as a vector."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The model that answered; only its vectors can be compared.")
    embedding: list[float] = Field(
        description="Of unit length: the sum of the products of two of them is the similarity, -1 to 1."
    )
    face: Face


class VerifyResponse(BaseModel):
    """Two faces compared."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field(description="The model that answered.")
    similarity: float = Field(ge=-1, le=1, description="The larger, the more alike.")
    same: bool = Field(description="Whether the similarity is at least the threshold.")
    threshold: float = Field(ge=-1, le=1, description="The threshold that was used.")
    face_a: Face
    face_b: Face


def _part(name: str, example: str) -> FilePart:
    return FilePart(
        name=name,
        noun="image",
        example=example,
        types=("image/*",),
        documented=("image/jpeg", "image/png", "image/webp"),
        description="An encoded image (JPEG, PNG, WebP, ...) with a face; of several the largest counts.",
    )


def _face(response: InferResponse, row: int) -> dict[str, Any]:
    """What the service says of one row."""
    values = {tensor.name: tensor.data[row] for tensor in response.outputs}
    aligned = bool(values["aligned"])
    width, height = values["size"].tolist()
    return {
        "box": values["box"].tolist(),
        "score": float(values["score"]) if aligned else None,
        "landmarks": [{"x": x, "y": y} for x, y in values["landmarks"].reshape(5, 2).tolist() if aligned],
        "aligned": aligned,
        "found": int(values["found"]),
        "image": {"width": width, "height": height},
    }


def _ask_embedding(fields: EmbedFields, image: bytes) -> Question:
    return Question((Tensor.of_bytes(INPUT, [image]),), {CROP: True} if fields.crop else {})


def _embedding(info: ModelInfo, response: InferResponse, fields: EmbedFields) -> Mapping[str, Any]:
    return {
        "model": info.network or info.name,
        "embedding": response.output("embedding").data[0].tolist(),
        "face": _face(response, 0),
    }


def _ask_comparison(fields: VerifyFields, images: tuple[bytes, ...]) -> Question:
    names = {NAMES: ",".join(part.name for part in VERIFY.files)}
    return Question((Tensor.of_bytes(INPUT, list(images)),), names | ({CROP: True} if fields.crop else {}))


def _comparison(info: ModelInfo, response: InferResponse, fields: VerifyFields) -> Mapping[str, Any]:
    first, second = response.output("embedding").data.astype(np.float64)
    similarity = float(np.clip((first * second).sum(), -1, 1))
    threshold = threshold_of(info) if fields.threshold is None else fields.threshold
    return {
        "model": info.network or info.name,
        "similarity": similarity,
        "same": similarity >= threshold,
        "threshold": threshold,
        "face_a": _face(response, 0),
        "face_b": _face(response, 1),
    }


EMBED = Task(
    name=TASK,
    path="/v1/faces/embed",
    rpc="nonet.v1.Recognition/EmbedFace",
    title="Describe a face by a vector",
    description="Finds the largest face of the image, brings it upright by its landmarks and describes it by "
    "a vector; vectors of one person are alike. An image without a face is refused (`FACE_NOT_FOUND`).",
    tag="Recognition",
    fields=EmbedFields,
    file=_part("image", "photo.jpg"),
    ask=_ask_embedding,
    answer=_embedding,
    response=EmbedResponse,
    rank="accuracy",
)

VERIFY = Task(
    name=TASK,
    path="/v1/faces/verify",
    rpc="nonet.v1.Recognition/VerifyFaces",
    title="Compare two faces",
    description="Says how alike the largest faces of two images are, and whether that is enough for one "
    "person.",
    tag="Recognition",
    fields=VerifyFields,
    files=(_part("image_a", "first.jpg"), _part("image_b", "second.jpg")),
    ask=_ask_comparison,
    answer=_comparison,
    response=VerifyResponse,
    rank="accuracy",
    page=Page("/faces", "Faces", __package__ or ""),
)
