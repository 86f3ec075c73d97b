"""The JSON schemas of what ``/v2`` takes and gives."""

from __future__ import annotations

from typing import Any

from nonet.gateway.oip.operations import PHASES, TOTALS
from nonet.runtime.tensors import DataType

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
NAME: Json = {"type": "string", "minLength": 1}
_DATATYPE: Json = {"type": "string", "enum": [str(kind) for kind in DataType]}
_PARAMETERS: Json = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "integer", "boolean"]},
}


def reference(name: str) -> Json:
    """To one of :data:`SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def _partly(required: list[str], /, **properties: Json) -> Json:
    return {"type": "object", "required": required, "properties": properties}


def object_of(**properties: Json) -> Json:
    """An object with these properties, all required."""
    return _partly([*properties], **properties)


def closed_object(**properties: Json) -> Json:
    """An object with these properties and no others, all optional."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def list_of(items: Json, **more: Any) -> Json:
    """A list of such items."""
    return {"type": "array", "items": items, **more}


_DURATION = reference("OipDuration")

SCHEMAS: Json = {
    "OipError": object_of(error=TEXT),
    "OipServer": object_of(name=TEXT, version=TEXT, extensions=list_of(TEXT)),
    "OipTensorMetadata": object_of(
        name=TEXT, datatype=_DATATYPE, shape=list_of({"type": "integer", "minimum": -1})
    ),
    "OipModel": object_of(
        name=TEXT,
        versions=list_of(TEXT),
        platform=TEXT,
        inputs=list_of(reference("OipTensorMetadata")),
        outputs=list_of(reference("OipTensorMetadata")),
    ),
    "OipInput": {
        **_partly(
            ["name", "datatype", "shape"],
            name=NAME,
            datatype=_DATATYPE,
            shape=list_of(COUNT),
            parameters=_PARAMETERS,
            data=list_of({}, description="The values, nested by shape or flat, row by row."),
        ),
        "description": "A tensor. Without `data`, `parameters.binary_data_size` says how many bytes of it "
        "follow the JSON part (binary tensor data extension), or `shared_memory_region`, "
        "`shared_memory_byte_size` and `shared_memory_offset` where it lies, if shared memory is served.",
    },
    "OipRequestedOutput": _partly(["name"], name=NAME, parameters=_PARAMETERS),
    "OipInferRequest": _partly(
        ["inputs"],
        id=TEXT,
        parameters=_PARAMETERS,
        inputs=list_of(reference("OipInput"), minItems=1),
        outputs=list_of(reference("OipRequestedOutput")),
    ),
    "OipOutput": _partly(
        ["name", "datatype", "shape"],
        name=TEXT,
        datatype=_DATATYPE,
        shape=list_of(COUNT),
        parameters=_PARAMETERS,
        data=list_of({}),
    ),
    "OipInferResponse": _partly(
        ["model_name", "outputs"],
        model_name=TEXT,
        model_version=TEXT,
        id=TEXT,
        parameters=_PARAMETERS,
        outputs=list_of(reference("OipOutput")),
    ),
    "OipDuration": object_of(count=COUNT, ns=COUNT),
    "OipModelStatistics": _partly(
        ["name", "version", "inference_count", "execution_count", "inference_stats", "batch_stats"],
        name=TEXT,
        version=TEXT,
        last_inference={**COUNT, "description": "Milliseconds since the epoch."},
        inference_count=COUNT,
        execution_count=COUNT,
        inference_stats=object_of(**dict.fromkeys(TOTALS, _DURATION)),
        batch_stats=list_of(object_of(batch_size=COUNT, **dict.fromkeys(PHASES, _DURATION))),
    ),
    "OipStatistics": object_of(model_stats=list_of(reference("OipModelStatistics"))),
    "OipIndexEntry": object_of(**dict.fromkeys(("name", "version", "state", "reason"), TEXT)),
}
