"""What the adaptation service can be asked: a regressor's answers here, the adaptation in :mod:`.adapt`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema
from pydantic.dataclasses import dataclass

from nonet.runtime.errors import InvalidArgument, Unprocessable
from nonet.runtime.images import ImageLimits
from nonet.runtime.requests import InferResponse
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import FilePart, Page, Question, Service, ServiceLimits, Task
from nonet.runtime.tensors import Tensor
from nonet.services.adaptation.adapt import ADAPT
from nonet.services.adaptation.derive import derive
from nonet.services.adaptation.names import INPUT, TASK
from nonet.services.adaptation.regress import MOST_ROWS
from nonet.services.adaptation.sites import RESOURCES
from nonet.services.adaptation.table import read_csv

__all__ = ["REGRESS", "SERVICE"]


def _read_inputs(value: Any) -> list[bytes]:
    """Rows, each as JSON, which the servable judges; in a form they are one JSON text."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            raise Unprocessable("field 'inputs' must be a list of rows in JSON", param=INPUT) from None
    if not isinstance(value, list):
        raise Unprocessable(
            "field 'inputs' must be a list of rows: [[1.5, 2], ...], or objects by column", param=INPUT
        )
    if len(value) > MOST_ROWS:
        raise InvalidArgument(
            f"field 'inputs' has {len(value)} rows; send at most {MOST_ROWS} at once", param=INPUT
        )
    for row, each in enumerate(value):
        if not isinstance(each, list | dict):
            raise InvalidArgument(
                f"row {row} must be a list of numbers or an object; a single row is [[...]]", param=INPUT
            )
    return [orjson.dumps(each) for each in value]


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class RegressFields:
    """Rows to answer, in the order of the answer."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    inputs: Annotated[
        list[bytes],
        PlainValidator(_read_inputs),
        WithJsonSchema(
            {
                "type": "array",
                "maxItems": MOST_ROWS,
                "items": {
                    "anyOf": [
                        {"type": "array", "items": {}},
                        {"type": "object", "additionalProperties": {"type": "number"}},
                    ]
                },
                "description": "Rows in the data's own units: each a list of numbers in the model's order "
                "(of windows a list of lists, a channel each), or an object of them by the model's feature "
                "names.",
            }
        ),
    ] = Field(default_factory=list)


class Prediction(BaseModel):
    """The answer to one row."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: float | list[float] = Field(description="The prediction; a list of a model with several outputs.")
    std: float | list[float] = Field(
        description="Its standard deviation over the passes with dropout, the members of an ensemble, or as "
        "the network has learnt it."
    )
    error: float | list[float] = Field(
        description="Standard deviation of the truth around the value, as measured at the source for such a "
        "`std`."
    )
    confident: bool = Field(description="Whether `std` is no larger than the calibration's threshold.")


class RegressResponse(BaseModel):
    """A prediction for each row, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    version: str = Field(description="The version that answered.")
    predictions: list[Prediction]


def _ask(fields: RegressFields, files: tuple[bytes, bytes]) -> Question:
    image, table = files
    if sum(map(bool, (fields.inputs, image, table))) != 1:
        raise InvalidArgument(
            "send one of 'inputs' (rows), 'table' (a CSV file) and 'image', and at least one row", param=INPUT
        )
    if image:
        return Question((Tensor.of_bytes(INPUT, [image]),))
    rows = [orjson.dumps(row) for row in read_csv(table, MOST_ROWS)] if table else fields.inputs
    return Question((Tensor.of_bytes(INPUT, rows),))


def _answer(info: ModelInfo, response: InferResponse, fields: RegressFields) -> Mapping[str, Any]:
    names = ("value", "std", "error")
    columns = [response.output(name).data.tolist() for name in names]
    confident = response.output("confident").data.tolist()
    return {
        "model": info.network or info.name,
        "version": response.version,
        "predictions": [
            {
                **{name: each[0] if len(each) == 1 else each for name, each in zip(names, row, strict=True)},
                "confident": sure,
            }
            for *row, sure in zip(*columns, confident, strict=True)
        ],
    }


def _from_message(values: dict[str, Any]) -> dict[str, Any]:
    rows = values.pop(INPUT, None)
    if rows is None:
        return {"model": "", **values}
    found = []
    for index, row in enumerate(rows):
        numbers = row.get("values", [])
        bad = next((each for each in numbers if each - each != 0), None)
        if bad is not None:
            raise InvalidArgument(
                f"row {index}, column {numbers.index(bad)} must be a finite number, got {bad}", param=INPUT
            )
        found.append(numbers)
    return {"model": "", **values, INPUT: found}


def _to_message(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    def listed(value: Any) -> Any:
        return [value] if isinstance(value, float) else value

    rows = [{name: listed(value) for name, value in each.items()} for each in answer["predictions"]]
    return {**answer, "predictions": rows}


REGRESS = Task(
    name=TASK,
    path="/v1/regress/{model}",
    rpc="nonet.v1.Adaptation/Regress",
    title="Predict numbers",
    description="Takes JSON with `inputs`, rows in the data's own units, or a form with the CSV file `table` "
    "(its header names the columns; without one their order is the model's) or with `image`, for models of "
    "images; in JSON these are base64. The standard deviation comes with every value. The path names a "
    "regressor, or one adapted to a site as `model@site`.",
    tag="Regression",
    fields=RegressFields,
    files=(
        FilePart(
            name="image",
            noun="image",
            example="photo.jpg",
            types=("image/*",),
            documented=("image/jpeg", "image/png"),
            description="The encoded image (JPEG, PNG, WebP, ...), for a model of images.",
            optional=True,
        ),
        FilePart(
            name="table",
            noun="table",
            example="rows.csv",
            types=("text/csv",),
            documented=("text/csv",),
            description="Rows as CSV.",
            optional=True,
        ),
    ),
    ask=_ask,
    answer=_answer,
    response=RegressResponse,
    from_message=_from_message,
    to_message=_to_message,
    rank="r2",
    max_bytes=16 << 20,
    page=Page("/adapt", "Adaptation", __package__ or ""),
    importer=f"{__package__}.importing.importer:import_regressor",
    statuses=(413,),
)


def _derive(limits: ServiceLimits) -> Callable[[Servable], Sequence[Servable]]:
    bounds = ImageLimits(encoded_bytes=limits.image_bytes, pixels=limits.image_pixels)
    return lambda network: derive(network, bounds)


SERVICE = Service(name="adaptation", tasks=(REGRESS, ADAPT), resources=RESOURCES, derive=_derive)
