"""`POST /v1/distil`: a smaller classifier of a published one, as a job that publishes it."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from nonet.runtime.errors import Conflict, NotImplementedHere
from nonet.runtime.repository.layout import read_model
from nonet.runtime.task import WHOLE, Accepted, FilePart, ModelChoice, Page, Task, Upload, Work
from nonet.services.recognition.derive import TASK
from nonet.services.recognition.distillation.names import KIND, PICTURES, model_of, not_yours
from nonet.services.recognition.distillation.upload import check_archive, copy

__all__ = ["DISTIL"]

#: An archive may unpack to this many times the largest upload.
_UNPACKED = 4


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class DistilFields:
    """What goes with the pictures."""

    model: ModelChoice = "auto"
    student: Annotated[
        Literal["nano", "t0", "t1", "t2"],
        Field(
            description="The FasterNet that learns: nano has 0.6 million parameters, t0 2.7, t1 6.4, t2 14."
        ),
    ] = "nano"
    name: Annotated[
        str,
        Field(
            max_length=128,
            pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$",
            description="Name of the new model; of teacher and student if left out.",
        ),
    ] = ""
    minutes: Annotated[
        float, Field(ge=0.05, le=1440, description="Wall time of the training.", allow_inf_nan=False)
    ] = 30.0
    schedule: Annotated[
        Literal["halving", "front_growth", "abrupt", "end_to_end"],
        Field(description="How the blocks are merged; end_to_end is distillation of the whole at once."),
    ] = "halving"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Of every random choice."), WHOLE] = 0
    least_agreement: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            allow_inf_nan=False,
            description="Share of the pictures held back on which the student must agree with its teacher; "
            "one that does not is not published, and the job fails.",
        ),
    ] = 0.5


def _accept(upload: Upload) -> Accepted:
    """The archive, checked and copied, and the teacher pinned.

    Raises what :func:`check_archive` raises, Conflict for a student called as its teacher, NotImplementedHere
    for a teacher that is not in this repository.
    """
    info, fields = upload.model, upload.fields
    assert info is not None
    if read_model(upload.repository, info.network) is None:
        raise NotImplementedHere(
            f"model '{info.network}' is kept by another process, so no job can learn from it", param="model"
        )
    name = fields.name or f"{info.network}_{fields.student}"
    if name == info.network:
        raise Conflict("field 'name' is the teacher's own; choose another", param="name")
    count = check_archive(upload.path, _UNPACKED * upload.limits.upload_bytes)
    spec: dict[str, Any] = {
        "teacher": info.network,
        "student": fields.student,
        "name": model_of(name),
        "minutes": fields.minutes,
        "schedule": fields.schedule,
        "seed": fields.seed,
        "least_agreement": fields.least_agreement,
        "count": count,
    }
    seen = copy(upload.path, upload.folder / PICTURES)
    told = json.dumps([KIND, spec, upload.values.get("webhook", ""), seen], sort_keys=True)
    return Accepted(spec, hashlib.sha256(told.encode()).hexdigest(), subject=name)


DISTIL = Task(
    name=TASK,
    path="/v1/distil",
    rpc="nonet.v1.Recognition/Distil",
    title="Distil a smaller classifier",
    description="Makes a smaller network that answers as `model`, any classifier of the repository, does, "
    "from pictures of the kind that it will see: a zip or a tar, sent as the form's file part `pictures` or "
    "as the body alone (then the fields stand in the query). A picture in a folder called like one of the "
    "teacher's classes has that label; others teach without one. A tenth is held back to measure with. The "
    "answer is a job; when it has succeeded the student is a version in its teacher's family, so that "
    "`auto` may choose it where time is short. The method is StableKD: block by block, then merged.",
    tag="Recognition",
    fields=DistilFields,
    file=FilePart(
        name="pictures",
        noun="archive of pictures",
        example="pictures.zip",
        types=("application/zip", "application/x-tar", "application/gzip", "application/octet-stream"),
        documented=("application/zip", "application/x-tar"),
        description="Pictures in a zip or a tar (also gzipped), at least 40.",
        inline=False,
    ),
    work=Work(
        kind=KIND,
        run="nonet.services.recognition.distillation.job:distil",
        accept=_accept,
        rpc="Distil",
        always=True,
        chooses_model=True,
        subject="name",
        publishes=model_of,
        not_yours=not_yours,
        requires=("torch", "onnxscript"),
        install="distilling needs {missing}; install it with: pip install torch onnxscript",
    ),
    page=Page("/distil", "Distillation", __package__ or ""),
    statuses=(403, 404, 409, 501),
)
