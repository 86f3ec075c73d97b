"""What ``/v1/raw/develop`` takes, as types: the source of its OpenAPI description.

The values themselves are judged by the service, which any other face calls in the same words.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nonet.gateway.tasks.jobs_schemas import IDEMPOTENCY_KEY, SUBMIT_HEADERS, WEBHOOK, JobEnvelope
from nonet.gateway.tasks.openapi_task import CALL_HEADERS, CALL_PARAMETERS, error_responses
from nonet.gateway.tasks.schemas import ModelChoice

__all__ = ["DEVELOP", "FIELDS", "SUBMIT_FIELDS", "DevelopRequest"]


class DevelopRequest(BaseModel):
    """A raw capture to develop, as JSON."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    raw: str = Field(
        description="The capture in base64, or a data: URL: a camera file with a Bayer sensor (DNG, CR2, "
        "NEF, ARW, ...), or a Bayer mosaic as 16-bit grey PNG or TIFF, as NPY of shape "
        "(height, width) in uint16 or a float type, or as bare little-endian 16-bit samples "
        "with `width` and `height`."
    )
    model: ModelChoice = "auto"
    cfa: Literal["RGGB", "GRBG", "GBRG", "BGGR"] | None = Field(
        default=None, description="Bayer phase of a mosaic; needed for one. Camera files say it themselves."
    )
    black_level: float | Annotated[list[float], Field(min_length=4, max_length=4)] | None = Field(
        default=None,
        description="Level of no light; one number, or four for the places of the pattern, row by row. "
        "Default: the camera file's own, 0 for a mosaic.",
    )
    white_level: float | None = Field(
        default=None,
        description="Level of saturation. Default: the camera file's own; for a mosaic 65535, or 1 for "
        "floats.",
    )
    width: int | None = Field(default=None, ge=0, description="Width of bare samples in pixels.")
    height: int | None = Field(default=None, ge=0, description="Height of bare samples in pixels.")
    output: Literal["png", "png16", "tiff16", "jpeg"] = Field(
        default="png", description="Encoding of the picture: RGB with 8 bits (png, jpeg) or 16."
    )
    noise: Literal["auto"] | Annotated[float, Field(ge=0, le=255)] = Field(
        default="auto",
        description="`auto` measures the noise of the capture and how it rises with the level; a number "
        "is its standard deviation at every level, black to white being 0 to 255. 0 only "
        "demosaicks.",
    )
    render: Literal["none", "srgb"] | None = Field(
        default=None,
        description="`none`: values in the mosaic's own scale (for 8-bit outputs, 0 to white_level "
        "becomes 0 to 255), the default for mosaics. `srgb`: a picture with white balance, "
        "camera matrix and tone curve, the default for camera files.",
    )
    white_balance: (
        Literal["camera", "auto", "none"] | Annotated[list[float], Field(min_length=3, max_length=3)] | None
    ) = Field(
        default=None,
        description="With render=srgb: the camera's (the default where the file has it), grey world, "
        "none, or gains for R, G, B.",
    )
    camera_matrix: Annotated[list[float], Field(min_length=9, max_length=9)] | None = Field(
        default=None,
        description="XYZ (D65) to camera RGB, row by row, as DNG's ColorMatrix, for render=srgb of a mosaic.",
    )
    uncertainty: bool = Field(
        default=False,
        description="The map of standard deviations instead of the picture; stored values times the header "
        "X-Std-Scale are in units of the picture's own stored values.",
    )


FIELDS = tuple(DevelopRequest.model_fields)
SUBMIT_FIELDS = (*FIELDS, "webhook")
"""The fields of a request that becomes a job."""

_SCHEMA: dict[str, Any] = DevelopRequest.model_json_schema()
_SCHEMA["properties"]["webhook"] = {
    **WEBHOOK,
    "description": "Only with `Prefer: respond-async`: a URL that is told of the job's end.",
}
_BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
_TEXTS = {
    "black_level": "A number, or four with commas between them.",
    "white_balance": "camera, auto, none, or three gains with commas between them.",
    "camera_matrix": "Nine numbers with commas between them.",
}


def _texts() -> dict[str, Any]:
    """The fields besides ``raw`` as a form or a query has them: lists are texts with commas."""
    properties = {name: dict(schema) for name, schema in _SCHEMA["properties"].items() if name != "raw"}
    for name, description in _TEXTS.items():
        properties[name] = {"type": "string", "description": description}
    return properties


def _body() -> dict[str, Any]:
    form = {
        **_SCHEMA,
        "description": "A raw capture to develop, as a form.",
        "properties": {"raw": {**_BYTES, "description": "The file."}, **_texts()},
    }
    alone = {"schema": {**_BYTES, "minLength": 1}}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            "application/json": {"schema": _SCHEMA},
            "application/octet-stream": alone,
            "image/x-adobe-dng": alone,
            "image/tiff": alone,
            "image/png": alone,
        },
    }


_HEADERS: dict[str, Any] = {
    **CALL_HEADERS,
    "X-Noise-Sigma": {
        "description": "Standard deviation of the noise measured at the capture's middle level, black to "
        "white being 0 to 255; absent if it could not be measured.",
        "schema": {"type": "number"},
    },
    "X-White-Balance": {
        "description": "Gains of R, G, B that were applied (render=srgb).",
        "schema": {"type": "string"},
    },
    "X-Std-Scale": {
        "description": "Factor from stored values of the uncertainty map to units of the picture's stored "
        "values (uncertainty=true).",
        "schema": {"type": "number"},
    },
}

DEVELOP: dict[str, Any] = {
    "description": "Takes a form with the file part `raw`, JSON with the capture in base64 or as a data: "
    "URL, or the bytes of the capture alone (then the other fields stand in the query). "
    "Answers with the picture, upright. A large capture takes long: send `X-Request-Timeout-Ms`, one that "
    "cannot be done in time is refused with the time it needs; or send `Prefer: respond-async`, then the "
    "answer is a job, and its picture is at `/v1/jobs/{job}/result`. The upload of a job goes to the disk as "
    "it arrives (JSON excepted), so it may be larger; a deadline is one for the submit then.",
    "responses": {
        200: {
            "description": "The picture, or its standard deviations.",
            "headers": _HEADERS,
            "content": {kind: {"schema": _BYTES} for kind in ("image/png", "image/tiff", "image/jpeg")},
        },
        202: {
            "model": JobEnvelope,
            "description": "The job (`Prefer: respond-async`).",
            "headers": {
                **SUBMIT_HEADERS,
                "Preference-Applied": {"description": "respond-async", "schema": {"type": "string"}},
            },
        },
        **error_responses(404, 409, 415, 422, 501, 502, 504, 507),
    },
    "openapi_extra": {
        "parameters": [
            *CALL_PARAMETERS,
            {
                "name": "Prefer",
                "in": "header",
                "description": "`respond-async` (RFC 7240) makes a job of the request; other preferences are "
                "ignored.",
                "schema": {"type": "string"},
            },
            {**IDEMPOTENCY_KEY, "description": f"Of a job. {IDEMPOTENCY_KEY['description']}"},
            *(
                {
                    "name": name,
                    "in": "query",
                    "description": "As in the body; read only when the body is the capture alone.",
                    "schema": {key: value for key, value in schema.items() if key != "description"},
                }
                for name, schema in _texts().items()
            ),
        ],
        "requestBody": _body(),
    },
}
