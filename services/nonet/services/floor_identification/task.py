"""What the floor identification service can be asked: to fit a building, and the floors of scans in one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic.dataclasses import dataclass

from nonet.runtime.errors import InvalidArgument, Unprocessable
from nonet.runtime.host import Host
from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import (
    WHOLE,
    Accepted,
    FilePart,
    Page,
    Question,
    Service,
    ServiceLimits,
    Task,
    Upload,
    Work,
)
from nonet.runtime.tensors import Tensor
from nonet.services.floor_identification.building_names import (
    FIT,
    SCANS,
    TASK,
    network_of,
    not_yours,
)
from nonet.services.floor_identification.derive import derive
from nonet.services.floor_identification.identify import INPUT
from nonet.services.floor_identification.resources import RESOURCES, find_building
from nonet.services.floor_identification.upload import read_upload

__all__ = ["FIT_BUILDING", "IDENTIFY", "SERVICE"]

MAX_SCANS = 1024
KNOWN_FROM = 0.5
"""A scan counts as one of the building from this probability on."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Rssi = Annotated[
    dict[str, Annotated[float, Field(ge=-150, le=0)]],
    Field(description="Transmitter (BSSID, or any other name) to received power in dBm; 0 is not heard."),
]


# -- fitting -----------------------------------------------------------------------------------


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


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class FitFields:
    """What goes with the scans of a building; a JSON body holds them and the `scans` themselves."""

    building: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
            description="Name of the building.",
        ),
    ]
    labelled: Labelled
    floors: Annotated[
        Annotated[int, Field(ge=2, le=16)] | list[str] | None,
        Field(description="Number of floors, or their names from the bottom up. Left out: estimated."),
    ] = None
    preset: Annotated[
        Literal["default", "paper"],
        Field(description="The recipe: the best that is known, or that of the paper."),
    ] = "default"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Of every random choice."), WHOLE] = 0


def _accept_fit(upload: Upload) -> Accepted:
    """The scans of a building, read in a process of their own and checked with the fields beside them."""
    read = read_upload(upload.path, upload.folder / SCANS, upload.values, in_query=upload.in_query)
    return Accepted(read.spec, read.digest, subject=str(read.spec["building"]))


def _fit_from_message(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a ``FitRequest``, with its scans as the file that they stand for."""
    scans, file = values.pop("scans", None), values.pop("file", b"")
    if bool(file) == bool(scans):
        raise InvalidArgument("send either scans or a file of scans", param="scans")
    names, floors = values.pop("floor_names", None), values.get("floors")
    if names is not None:
        if floors not in (None, len(names)):
            raise InvalidArgument("floors is not the number of floor_names", param="floors")
        values["floors"] = names
    labelled = {
        "scan": values.pop("labelled_scan", ""),
        "floor": values.pop("labelled_floor", ""),
        "position": values.pop("labelled_position", None),
    }
    if scans:
        rows = [
            {
                "id": scan.get("id") or str(index),
                "rssi": finite_rssi(scan, f"scan '{scan.get('id') or index}'"),
            }
            for index, scan in enumerate(scans)
        ]
        file = orjson.dumps(rows)
    return {
        "building": "",
        "preset": "default",
        "seed": 0,
        **values,
        "labelled": labelled,
        "scans": file,
    }


FIT_BUILDING = Task(
    name=TASK,
    path="/v1/floors/buildings",
    rpc="nonet.v1.FloorIdentification/Fit",
    title="Fit a building",
    description="Takes JSON, a form with the file part `scans` (CSV, Parquet or JSON, also gzipped), or "
    "the file alone; the other fields may stand in the query. The body goes to the disk as it arrives. "
    "Answers with a job; when it has succeeded the building is a model version, and an older version "
    "serves until then. Send `Idempotency-Key` to be able to repeat the request safely. 403 for a building "
    "that another tenant has fitted.",
    tag="Floors",
    fields=FitFields,
    file=FilePart(
        name="scans",
        noun="file of scans",
        example="scans.csv",
        types=(
            "text/csv",
            "application/csv",
            "application/gzip",
            "application/vnd.apache.parquet",
            "application/x-parquet",
        ),
        documented=("text/csv", "application/vnd.apache.parquet"),
        description="The scans: CSV, Parquet or JSON, also gzipped.",
        inline=False,
    ),
    from_message=_fit_from_message,
    max_bytes=16 << 20,
    work=Work(
        kind=FIT,
        run="nonet.services.floor_identification.job:fit_building",
        accept=_accept_fit,
        rpc="Fit",
        always=True,
        checks_fields=True,
        subject="building",
        publishes=network_of,
        not_yours=not_yours,
        requires=("scipy", "sklearn", "threadpoolctl"),
        install="fitting a building needs {missing}; install it with: pip install scikit-learn scipy",
    ),
    page=Page("/floors", "Floors", __package__ or ""),
    statuses=(403, 409, 501),
)


# -- identification ----------------------------------------------------------------------------


class IdentifyScan(_Strict):
    """One scan to identify."""

    id: str | int | None = Field(default=None, description="Not read; for your own use.")
    rssi: Rssi


def _read_scans(value: Any) -> list[bytes]:
    """The scans, each as the JSON of transmitter to dBm, which the servable judges."""
    if not isinstance(value, list):
        raise Unprocessable("field 'scans' must be a list of scans", param="scans")
    if not value:
        raise InvalidArgument("field 'scans' is empty; send at least one scan", param="scans")
    if len(value) > MAX_SCANS:
        raise InvalidArgument(
            f"field 'scans' has more than {MAX_SCANS} scans; send at most {MAX_SCANS} at once", param="scans"
        )
    for index, scan in enumerate(value):
        if (
            not isinstance(scan, dict)
            or not isinstance(scan.get("rssi"), dict)
            or not scan.keys() <= {"id", "rssi"}
            or not isinstance(scan.get("id"), str | int | None)
        ):
            raise Unprocessable(
                f"field 'scans[{index}]' must be an object with 'rssi' (transmitter to dBm) and 'id' (a "
                "text or a number) at most",
                param="scans",
            )
    return [_dumped(index, scan["rssi"]) for index, scan in enumerate(value)]


def _dumped(index: int, rssi: Any) -> bytes:
    try:
        return orjson.dumps(rssi)
    except TypeError:  # nested deeper than any reading is
        raise InvalidArgument(
            f"field 'scans[{index}]' has too many lists or objects in it", param="scans"
        ) from None


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class IdentifyFields:
    """Scans to identify, in the order of the answer."""

    building: str
    scans: Annotated[
        list[bytes],
        PlainValidator(_read_scans),
        WithJsonSchema(
            {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_SCANS,
                "items": IdentifyScan.model_json_schema(),
                "description": "The scans.",
            }
        ),
    ]


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


def _identify_from_message(values: dict[str, Any]) -> dict[str, Any]:
    scans = [
        {"rssi": finite_rssi(scan, f"scan {index}")} for index, scan in enumerate(values.get("scans", ()))
    ]
    return {"building": values.get("building", ""), "scans": scans}


def finite_rssi(scan: Mapping[str, Any], called: str) -> dict[str, float]:
    """The readings of a scan in a message. Raises InvalidArgument for numbers that JSON does not have."""
    rssi: dict[str, float] = scan.get("rssi", {})
    for name, power in rssi.items():
        if power != power or power in (float("inf"), float("-inf")):
            raise InvalidArgument(
                f"{called[:60]}: rssi must be -150 to 0 dBm, got {power} for {name[:40]!r}", param="scans"
            )
    return rssi


def _ask(fields: IdentifyFields, file: bytes) -> Question:
    return Question((Tensor.of_bytes(INPUT, fields.scans),))


def _answer(info: ModelInfo, response: InferResponse, fields: IdentifyFields) -> Mapping[str, Any]:
    shares = [[round(float(share), 6) for share in row] for row in response.output("distribution").data]
    columns = (response.output(name).data for name in ("floor", "confidence", "known", "heard"))
    return {
        "building": fields.building,
        "floors": [
            {
                "floor": floor.decode() or None,
                "confidence": round(float(confidence), 6),
                "known": bool(known >= KNOWN_FROM),
                "heard": int(heard),
                "distribution": dict(zip(info.labels, row, strict=True)),
            }
            for floor, confidence, known, heard, row in zip(*columns, shares, strict=True)
        ],
    }


async def _find(host: Host, parameters: Mapping[str, str]) -> ModelInfo:
    return await find_building(host, parameters["building"])


IDENTIFY = Task(
    name=TASK,
    path="/v1/floors/buildings/{building}/identify",
    rpc="nonet.v1.FloorIdentification/Identify",
    title="Identify floors",
    description="Transmitters that the building does not know are ignored; a scan of another place gets a "
    "low confidence and `known: false`.",
    tag="Floors",
    fields=IdentifyFields,
    ask=_ask,
    answer=_answer,
    response=IdentifyResponse,
    find=_find,
    input_field="scans",
    from_message=_identify_from_message,
    max_bytes=12 << 20,
)


def _derive(limits: ServiceLimits) -> Callable[[Servable], Sequence[Servable]]:
    return derive


SERVICE = Service(
    name="floor_identification", tasks=(FIT_BUILDING, IDENTIFY), resources=RESOURCES, derive=_derive
)
