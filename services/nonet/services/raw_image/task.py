"""What the raw image service can be asked: a picture of a raw capture, now or as a job."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import orjson
from pydantic import ConfigDict, Field, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from nonet.runtime.backends.requirement import engine_requirements
from nonet.runtime.errors import NotImplementedHere, Unprocessable
from nonet.runtime.repository.layout import read_model
from nonet.runtime.requests import InferResponse, Parameter
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.task import (
    Accepted,
    Blob,
    BlobDescription,
    FilePart,
    ModelChoice,
    Page,
    Question,
    Service,
    ServiceLimits,
    Task,
    Upload,
    Work,
)
from nonet.runtime.tensors import Tensor
from nonet.services.raw_image.capture_cost import request_cost
from nonet.services.raw_image.derive import TASK, derive
from nonet.services.raw_image.develop import INPUT
from nonet.services.raw_image.job_spec import CAPTURE, KIND, DevelopSpec
from nonet.services.raw_image.limits import RawLimits
from nonet.services.raw_image.options import NAMES, OUTPUTS, RENDERS, WHITE_BALANCES
from nonet.services.raw_image.upload import take_upload

__all__ = ["DEVELOP", "SERVICE"]

_MAX_TEXT: Final = 400
_MAX_LIST: Final = 16


def _parameter(description: str, **schema: Any) -> Any:
    """A parameter of the service, which judges its value; None where it was not given."""
    return Field(default=None, description=description, json_schema_extra=schema)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _numbers(count: int) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "number"}, "minItems": count, "maxItems": count}


_NUMBER: Final = {"type": "number"}
_TEXT: Final = {"type": "string"}


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class DevelopFields:
    """What goes with a capture; lists may be texts with commas."""

    model: ModelChoice | None = "auto"
    cfa: Any = _parameter(
        "Bayer phase of a mosaic; needed for one. Camera files say it themselves.",
        type="string",
        enum=["RGGB", "GRBG", "GBRG", "BGGR"],
    )
    black_level: Any = _parameter(
        "Level of no light; one number, or four for the places of the pattern, row by row. Default: the "
        "camera file's own, 0 for a mosaic.",
        anyOf=[_NUMBER, _numbers(4), _TEXT],
    )
    white_level: Any = _parameter(
        "Level of saturation; one number, or four for the places of the pattern, row by row. Default: the "
        "camera file's own; for a mosaic the largest number of its bits, or 1 for floats.",
        anyOf=[_NUMBER, _numbers(4), _TEXT],
    )
    width: Any = _parameter("Width of bare samples in pixels.", type="integer", minimum=0)
    height: Any = _parameter("Height of bare samples in pixels.", type="integer", minimum=0)
    output: Any = _parameter(
        "Encoding of the picture: RGB with 8 bits (png, jpeg) or 16.",
        type="string",
        enum=list(OUTPUTS),
        default="png",
    )
    noise: Any = _parameter(
        "`auto` measures the noise of the capture and how it rises with the level; a number is its "
        "standard deviation at every level, black to white being 0 to 255. 0 only demosaicks.",
        anyOf=[{"type": "string", "enum": ["auto"]}, {"type": "number", "minimum": 0, "maximum": 255}],
        default="auto",
    )
    render: Any = _parameter(
        "`none`: values in the mosaic's own scale (for 8-bit outputs, 0 to white_level becomes 0 to 255), "
        "the default for mosaics. `srgb`: a picture with white balance, camera matrix and tone curve, the "
        "default for camera files.",
        type="string",
        enum=list(RENDERS),
    )
    white_balance: Any = _parameter(
        "With render=srgb: the camera's (the default where the file has it), grey world, none, or gains "
        "for R, G, B.",
        anyOf=[{"type": "string", "enum": list(WHITE_BALANCES)}, _numbers(3), _TEXT],
    )
    camera_matrix: Any = _parameter(
        "XYZ (D65) to camera RGB, row by row, as DNG's ColorMatrix, for render=srgb of a mosaic.",
        anyOf=[_numbers(9), _TEXT],
    )
    exposure: Any = _parameter(
        "With render=srgb: `auto` puts the brightest half per cent just below white, by a gain of 1 to 8; a "
        "number is stops from the capture's white to the picture's, 0 being none.",
        anyOf=[{"type": "string", "enum": ["auto"]}, {"type": "number", "minimum": -8, "maximum": 8}],
        default="auto",
    )
    strength: Any = _parameter(
        "Share of the noise found that is taken away. 0 only demosaicks.",
        type="number",
        minimum=0,
        maximum=1,
        default=1,
    )
    uncertainty: Any = _parameter(
        "The map of standard deviations instead of the picture; stored values times the header X-Std-Scale "
        "are in units of the picture's own stored values.",
        type="boolean",
        default=False,
    )

    @field_validator(*NAMES, mode="plain")
    @classmethod
    def _taken(cls, value: Any, info: ValidationInfo) -> Parameter | None:
        """A value as it was sent; a list of numbers becomes a text with commas."""
        if isinstance(value, list) and 0 < len(value) <= _MAX_LIST and all(map(_is_number, value)):
            return ",".join(map(repr, value))
        if value is None or isinstance(value, bool) or _is_number(value):
            taken: bool | int | float | None = value
            return taken
        if isinstance(value, str) and len(value) <= _MAX_TEXT:
            return value
        raise Unprocessable(
            f"field '{info.field_name}' must be a text of at most {_MAX_TEXT} characters, a number, true, "
            "false, or a list of numbers",
            param=info.field_name,
        )

    def parameters(self) -> dict[str, Parameter]:
        """What was given, as parameters of the service."""
        given = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in given.items() if value is not None}


def _ask(fields: DevelopFields, capture: bytes) -> Question:
    return Question((Tensor.of_bytes(INPUT, [capture]),), fields.parameters())


def _answer(info: ModelInfo, response: InferResponse, fields: DevelopFields) -> Blob:
    facts: dict[str, Any] = orjson.loads(response.output("details").data[0])
    return Blob(
        response.output("picture").data[0],
        facts["content_type"],
        headers=_headers(facts),
        field="picture",
        facts={
            "width": facts["width"],
            "height": facts["height"],
            "noise_sigma": facts["noise"]["sigma"] if facts["noise"]["known"] else None,
            "white_balance": facts.get("white_balance", ()),
            "std_scale": facts.get("std_scale"),
        },
    )


def _headers(facts: Mapping[str, Any]) -> dict[str, str]:
    """The headers that say what was done to the capture, from the service's ``details``."""
    headers = {}
    if facts["noise"]["known"]:
        headers["X-Noise-Sigma"] = f"{facts['noise']['sigma']:g}"
    if "white_balance" in facts:
        headers["X-White-Balance"] = ",".join(f"{gain:g}" for gain in facts["white_balance"])
    if "std_scale" in facts:
        headers["X-Std-Scale"] = repr(facts["std_scale"])
    return headers


def _result_headers(result: Mapping[str, Any]) -> dict[str, str]:
    return {**_headers(result["details"]), "X-Model-Version": str(result["version"])}


def _accept(upload: Upload) -> Accepted:
    """A capture that is to be developed as a job: checked, copied, and its model pinned.

    Raises what the service raises for the capture and its parameters, as far as that shows without decoding
    pixels, and NotImplementedHere if the workers cannot have the network.
    """
    info, fields = upload.model, upload.fields
    assert info is not None
    folder = read_model(upload.repository, info.network)
    details = info.details
    here = folder is not None and info.version in [each.version for each in folder.versions]
    if not here or not {"content", "engine", "precision"} <= details.keys():
        raise NotImplementedHere(
            f"model '{info.network}' is kept by another process, so no job can use it; send the request "
            "without Prefer: respond-async",
            param="model",
        )
    spec = DevelopSpec(
        network=info.network,
        version=info.version,
        content=str(details["content"]),
        engine=str(details["engine"]),
        precision=str(details["precision"]),
        parameters=fields.parameters(),
        pixels=upload.limits.image_pixels,
    )
    taken = take_upload(
        upload.path, upload.folder / CAPTURE, spec.parameters, limits=RawLimits(pixels=spec.pixels)
    )
    webhook = upload.values.get("webhook", "")
    sent = json.dumps([KIND, fields.model or "auto", webhook, taken])
    return Accepted(
        dataclasses.asdict(spec),
        hashlib.sha256(sent.encode()).hexdigest(),
        requirements=engine_requirements(spec.engine, spec.precision),
    )


DEVELOP = Task(
    name=TASK,
    path="/v1/raw/develop",
    rpc="nonet.v1.RawImage/Develop",
    title="Develop a raw capture",
    description="Takes a form with the file part `raw`, JSON with the capture in base64 or as a data: URL, "
    "or the bytes of the capture alone (then the other fields stand in the query). Answers with the "
    "picture, upright. A large capture takes long: send `X-Request-Timeout-Ms`, one that cannot be done in "
    "time is refused with the time it needs; or send `Prefer: respond-async`, then the answer is a job, "
    "and its picture is at `/v1/jobs/{job}/result`. The upload of a job goes to the disk as it arrives "
    "(JSON excepted), so it may be larger; a deadline is one for the submit then.",
    tag="Raw images",
    fields=DevelopFields,
    file=FilePart(
        name="raw",
        noun="capture",
        example="capture.dng",
        types=("application/octet-stream", "image/*"),
        documented=("image/x-adobe-dng", "image/tiff", "image/png"),
        description="A camera file with a Bayer sensor (DNG, CR2, NEF, ARW, ...), or a Bayer mosaic as "
        "16-bit grey PNG or TIFF, as NPY of shape (height, width) in uint16, int16 or floats, or as bare "
        "little-endian 16-bit samples with `width` and `height`.",
        empty_code="RAW_EMPTY",
    ),
    ask=_ask,
    answer=_answer,
    response=BlobDescription(
        "The picture, or its standard deviations.",
        ("image/png", "image/tiff", "image/jpeg"),
        {
            "X-Noise-Sigma": (
                "number",
                "Standard deviation of the noise measured at the capture's middle level, black to white "
                "being 0 to 255; absent if it could not be measured.",
            ),
            "X-White-Balance": ("string", "Gains of R, G, B that were applied (render=srgb)."),
            "X-Std-Scale": (
                "number",
                "Factor from stored values of the uncertainty map to units of the picture's stored values "
                "(uncertainty=true).",
            ),
        },
    ),
    rank="psnr_sigma_10",
    cost=request_cost,
    work=Work(
        kind=KIND,
        run="nonet.services.raw_image.job:develop_capture",
        accept=_accept,
        rpc="SubmitDevelop",
        chooses_model=True,
        headers=_result_headers,
    ),
    page=Page("/raw", "Raw captures", __package__ or ""),
)


def _derive(limits: ServiceLimits) -> Callable[[Servable], Sequence[Servable]]:
    return functools.partial(derive, limits=RawLimits(pixels=limits.image_pixels))


SERVICE = Service(name="raw_image", tasks=(DEVELOP,), derive=_derive)
