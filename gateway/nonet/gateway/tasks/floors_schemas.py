"""What the routes of floors take and give, as types: the source of their OpenAPI description."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nonet.gateway.tasks.jobs_schemas import IDEMPOTENCY_KEY, SUBMIT_HEADERS, WEBHOOK
from nonet.gateway.tasks.openapi_task import CALL_HEADERS, CALL_PARAMETERS, REQUEST_ID, error_responses

__all__ = [
    "BUILDING",
    "BUILDINGS",
    "DELETE",
    "FIT",
    "IDENTIFY",
    "PICTURE",
    "BuildingBody",
    "BuildingList",
    "FitRequest",
    "IdentifyResponse",
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Rssi = Annotated[
    dict[str, Annotated[float, Field(ge=-150, le=0)]],
    Field(description="Transmitter (BSSID, or any other name) to received power in dBm."),
]


class Scan(_Strict):
    """One WiFi scan."""

    id: str | int | None = Field(default=None, description="Name of the scan; its position if left out.")
    rssi: Rssi


class Labelled(_Strict):
    """The one label that a building needs."""

    scan: str | int = Field(description="Id of a scan of the upload.")
    floor: str | int = Field(description="Name or number of the floor it was taken on.")
    position: int | None = Field(
        default=None,
        description="Which floor that is, from the bottom (1, 2, ...) or from the top (-1, -2, ...). Left "
        "out: its place among the names in `floors`, else the bottom.",
    )


class FitRequest(_Strict):
    """Scans of a building, one of them with its floor, as JSON."""

    building: str = Field(
        min_length=1,
        max_length=64,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Name of the building.",
    )
    scans: list[Scan] = Field(min_length=1)
    labelled: Labelled
    floors: Annotated[int, Field(ge=2, le=16)] | list[str] | None = Field(
        default=None,
        description="Number of floors, or their names from the bottom up. Left out: estimated.",
    )
    preset: Literal["default", "paper"] = Field(
        default="default", description="The recipe: the best that is known, or that of the paper."
    )
    seed: int = Field(default=0, ge=0, le=2**31 - 1, description="Of every random choice.")
    webhook: str | None = Field(
        default=None,
        max_length=2048,
        description="URL that is told of the job's end, if the operator allows its host; see docs/jobs.md.",
    )


class IdentifyScan(_Strict):
    """One scan to identify."""

    id: str | int | None = Field(default=None, description="Not read; for your own use.")
    rssi: Rssi


class IdentifyRequest(_Strict):
    """Scans to identify, in the order of the answer."""

    scans: list[IdentifyScan] = Field(min_length=1, max_length=1024)


class Identified(_Strict):
    """The floor of one scan."""

    floor: str | None = Field(
        description="The likeliest floor; null if nothing of the building was heard, or too weakly to tell."
    )
    confidence: float = Field(
        ge=0, le=1, description="Probability that it is right, which includes that it is this building."
    )
    known: bool = Field(description="Whether the scan seems to be of this building at all.")
    heard: int = Field(ge=0, description="Transmitters of the building in the scan; others are ignored.")
    distribution: dict[str, float] = Field(description="Probability of each floor, if it is this building.")


class IdentifyResponse(_Strict):
    """A floor for each scan, in their order."""

    building: str
    floors: list[Identified]


class BuildingBody(_Strict):
    """A fitted building."""

    building: str
    object: Literal["building"]
    model: str = Field(description="Name of its network in the model repository.")
    version: str = Field(description="The version that answers.")
    versions: list[str] = Field(description="Versions that can be asked.")
    floors: list[str] = Field(description="Names of the floors, bottom first.")
    quality: dict[str, float] = Field(description="Measured figures of the fit.")
    warnings: list[Any] = Field(description="What to be careful with.")
    created: str
    facts: dict[str, Any] = Field(
        description="Scans, transmitters, evidence and the like; see docs/floors.md."
    )


class BuildingList(_Strict):
    """Fitted buildings, by name."""

    object: Literal["list"]
    data: list[BuildingBody]


_FIT_SCHEMA: dict[str, Any] = FitRequest.model_json_schema(ref_template="#/components/schemas/{model}")
_FIT_SCHEMA.pop("$defs", None)
_IDENTIFY_SCHEMA: dict[str, Any] = IdentifyRequest.model_json_schema(
    ref_template="#/components/schemas/{model}"
)
_IDENTIFY_SCHEMA.pop("$defs", None)

COMPONENTS: dict[str, Any] = {
    **FitRequest.model_json_schema(ref_template="#/components/schemas/{model}")["$defs"],
    **IdentifyRequest.model_json_schema(ref_template="#/components/schemas/{model}")["$defs"],
}
"""Schemas that bodies read by hand refer to."""

_BYTES: dict[str, Any] = {"type": "string", "format": "binary", "minLength": 1}
_TEXTS: dict[str, Any] = {
    "building": {"type": "string", "description": "Name of the building."},
    "labelled": {"type": "string", "description": 'JSON: {"scan": id, "floor": name}.'},
    "floors": {"type": "string", "description": "A number, a JSON list of names, or a repeated field."},
    "preset": {"type": "string", "enum": ["default", "paper"]},
    "seed": {"type": "integer", "minimum": 0},
    "webhook": WEBHOOK,
}

FIT: dict[str, Any] = {
    "description": "Takes JSON, a form with the file part `scans` (CSV, Parquet or JSON, also gzipped), or "
    "the file alone; the other fields may stand in the query. The body goes to the disk as it arrives. "
    "Answers with a job; when it has succeeded the building is a model version, and an older version serves "
    "until then. Send `Idempotency-Key` to be able to repeat the request safely. 403 for a building that "
    "another tenant has fitted.",
    "responses": {
        202: {
            "description": "The job.",
            "headers": SUBMIT_HEADERS,
        },
        **error_responses(403, 409, 415, 422, 501, 504, 507),
    },
    "openapi_extra": {
        "parameters": [
            *CALL_PARAMETERS[:2],
            IDEMPOTENCY_KEY,
            *(
                {
                    "name": name,
                    "in": "query",
                    "description": "As in the form; give each field once, here or in the body.",
                    "schema": {key: value for key, value in schema.items() if key != "description"},
                }
                for name, schema in _TEXTS.items()
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _FIT_SCHEMA},
                "multipart/form-data": {
                    "schema": {
                        "type": "object",
                        "required": ["building", "scans", "labelled"],
                        "properties": {"scans": {**_BYTES, "description": "The file."}, **_TEXTS},
                        "additionalProperties": False,
                    }
                },
                "text/csv": {"schema": _BYTES},
                "application/vnd.apache.parquet": {"schema": _BYTES},
            },
        },
    },
}

BUILDINGS: dict[str, Any] = {"description": "All fitted buildings.", "responses": error_responses()}

BUILDING: dict[str, Any] = {
    "description": "Floors, scans, quality, versions and warnings of one building.",
    "responses": error_responses(404, 422),
}

DELETE: dict[str, Any] = {
    "description": "Removes the building with all its versions; requests in flight are still answered. 409 "
    "while a fit of it waits or runs, 403 for a building that another tenant has fitted.",
    "responses": {204: {"description": "It is gone."}, **error_responses(403, 404, 409, 422, 501, 507)},
}

PICTURE: dict[str, Any] = {
    "description": "The clusters of scans in the plane, the spillover between floors, and the order that was "
    "found, as PNG.",
    "responses": {
        200: {"description": "The picture.", "content": {"image/png": {"schema": _BYTES}}},
        **error_responses(404, 422),
    },
    "openapi_extra": {"parameters": [REQUEST_ID]},
}

IDENTIFY: dict[str, Any] = {
    "description": "Transmitters that the building does not know are ignored; a scan of another place gets a "
    "low confidence and `known: false`.",
    "responses": {
        200: {"description": "A floor for each scan.", "headers": CALL_HEADERS},
        **error_responses(404, 415, 422, 502, 504, 507),
    },
    "openapi_extra": {
        "parameters": CALL_PARAMETERS,
        "requestBody": {"required": True, "content": {"application/json": {"schema": _IDENTIFY_SCHEMA}}},
    },
}
