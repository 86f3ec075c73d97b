"""`POST /v1/adapt/{model}`: a regressor adapted to a site's unlabelled rows, as a job."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from nonet.runtime.errors import (
    Conflict,
    InvalidArgument,
    ModelRefused,
    NotFound,
    NotImplementedHere,
    ServingError,
    Unprocessable,
)
from nonet.runtime.repository.layout import MANIFEST_FILE, read_model, scan
from nonet.runtime.repository.manifest import read_manifest
from nonet.runtime.servable import ModelInfo
from nonet.runtime.task import WHOLE, Accepted, FilePart, Task, Upload, Work
from nonet.services.adaptation.columns import Columns
from nonet.services.adaptation.derive import features_of
from nonet.services.adaptation.names import (
    CALIBRATION_FILE,
    INPUT,
    KIND,
    MOST_SITES,
    NETWORK_FILE,
    ROWS_FILE,
    TASK,
    WEIGHTS_FILE,
    model_of,
    not_yours,
    site_model,
    split_site,
)
from nonet.services.adaptation.upload import read_upload

__all__ = ["ADAPT", "check_sites"]

_LARGEST_FILE: Final = 256 << 20


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class AdaptFields:
    """What goes with a site's rows; a JSON body holds them and the rows as `inputs`."""

    model: Annotated[str, Field(min_length=1, max_length=256)]
    site: Annotated[
        str,
        Field(
            max_length=64,
            description="Name of the site. The adapted version becomes the model `model@site`, and `model` "
            "stays as it is; left out, it becomes the next version of `model` itself.",
        ),
    ] = ""
    activate: Annotated[
        bool,
        Field(
            description="Whether an accepted version is published, and answers from then on. With `false` "
            "the job only tells what it found; the same request with `true` makes the same version."
        ),
    ] = True
    shadow: Annotated[
        int,
        Field(
            ge=0,
            le=1_000_000,
            description="Rows of live requests that an accepted version answers beside the one that serves, "
            "unseen by the callers, before it takes over; it never does if it fails, or is unsure of clearly "
            "more of them. 0: it takes over at once, as the first version of a site does.",
        ),
    ] = 0
    method: Annotated[
        Literal["tasfar", "self_training"],
        Field(description="TASFAR, or its control: training on the model's own answers."),
    ] = "tasfar"
    epochs: Annotated[
        int | None, Field(ge=1, le=200, description="At most; left out, what the model's calibration says.")
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Of every random choice."), WHOLE] = 0


_FIELDS: Final = TypeAdapter(AdaptFields)
_SCHEMA: Final[Mapping[str, Any]] = _FIELDS.json_schema()["properties"]


def checked(given: Mapping[str, Any]) -> AdaptFields:
    """The fields. Raises Unprocessable for an unknown or ill-typed one, InvalidArgument for a value out of
    its range."""
    try:
        return _FIELDS.validate_python(dict(given))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    name, kind = str(first["loc"][0]) if first["loc"] else "", first["type"]
    if kind.startswith("unexpected"):
        known = ", ".join([INPUT, *(field for field in _SCHEMA if field != "model"), "webhook"])
        raise Unprocessable(
            f"unknown field {name[:80]!r}; the fields are {known}", param=name[:80], code="UNKNOWN_FIELD"
        )
    refusal: type[ServingError] = Unprocessable if kind.endswith(("_type", "_parsing")) else InvalidArgument
    raise refusal(f"field '{name[:80]}': {first['msg'][:1].lower()}{first['msg'][1:]}", param=name[:80])


def _accept(upload: Upload) -> Accepted:
    """The rows, read in a process of their own and checked, and the version that is adapted, pinned.

    Raises Conflict for a regressor that cannot be adapted and for one site too many, NotImplementedHere for
    one that is not in this repository, and what reading raises.
    """
    info = upload.model
    assert info is not None
    columns = _columns(info, upload.repository)
    read = read_upload(upload.path, upload.folder / ROWS_FILE, columns)
    given = dict(upload.values)
    for name in read.fields.keys() & upload.in_query:
        del given[name]
    for name in read.fields.keys() & given.keys():
        raise Unprocessable(
            f"field {name[:80]!r} is given beside the file and in it; give it once", param=name[:80]
        )
    given = {**read.fields, **given}
    webhook = given.pop("webhook", "")
    fields = checked(given)
    name = model_of(site_model(info.network, fields.site))
    check_sites(upload.repository, name)
    spec: dict[str, Any] = {
        "model": info.network,
        "version": info.version,
        "name": name,
        "site": split_site(name)[1],
        "activate": fields.activate,
        **({"shadow": fields.shadow} if fields.shadow else {}),
        "method": fields.method,
        "epochs": fields.epochs,
        "seed": fields.seed,
        "rows": read.rows,
        "shape": list(columns.shape),
        "read_as": read.kind,
        "ignored_columns": list(read.ignored[:100]),
    }
    told = json.dumps([KIND, spec, webhook, read.digest], sort_keys=True)
    return Accepted(
        {**spec, "webhook": webhook} if webhook else spec,
        hashlib.sha256(told.encode()).hexdigest(),
        subject=name,
    )


def _columns(info: ModelInfo, repository: Path) -> Columns:
    """Of a model that can be adapted here."""
    folder = read_model(repository, info.network)
    version = (
        next((each for each in folder.versions if each.version == info.version), None) if folder else None
    )
    if version is None:
        raise NotImplementedHere(
            f"model '{info.network}' is kept by another process, so no job can adapt it", param="model"
        )
    lacking = [
        name for name in (NETWORK_FILE, WEIGHTS_FILE, CALIBRATION_FILE) if not (version.path / name).is_file()
    ]
    if lacking:
        raise Conflict(
            f"model '{info.network}' cannot be adapted: its version {info.version} has no "
            f"{' and no '.join(lacking)}, so there is nothing to train; it answers as it is",
            param="model",
            code="NOT_ADAPTABLE",
        )
    try:
        shape = tuple(int(each) for each in json.loads((version.path / NETWORK_FILE).read_bytes())["inputs"])
        manifest = read_manifest(version.path / MANIFEST_FILE)
    except (ValueError, KeyError, TypeError, OSError, ModelRefused):
        raise Conflict(
            f"model '{info.network}' cannot be adapted: {NETWORK_FILE} of its version {info.version} "
            "describes no network",
            param="model",
            code="NOT_ADAPTABLE",
        ) from None
    if len(shape) not in (1, 2):
        raise Conflict(
            f"model '{info.network}' takes images; adapting to a site's rows is for models of rows and of "
            "windows",
            param="model",
            code="NOT_ADAPTABLE",
        )
    return Columns(shape, features_of(manifest.source if manifest is not None else {}))


def check_sites(repository: Path, name: str) -> None:
    """Whether the model ``name`` may be a new site of its model. Raises Conflict (``TOO_MANY_SITES``)."""
    model, site = split_site(name)
    if not site or read_model(repository, name) is not None:
        return
    try:
        known = [each for each in scan(repository) if each.startswith(f"{model}@")]
    except OSError:
        raise NotFound("there is no model repository here", param="model") from None
    if len(known) >= MOST_SITES:
        raise Conflict(
            f"model '{model}' has {len(known)} sites, which is the most; delete one first "
            f"(DELETE /v1/adapt/{model}/sites/SITE)",
            param="site",
            code="TOO_MANY_SITES",
        )


def _from_message(values: dict[str, Any]) -> dict[str, Any]:
    return {"model": "", **values}


ADAPT = Task(
    name=TASK,
    path="/v1/adapt/{model}",
    rpc="nonet.v1.Adaptation/Adapt",
    title="Adapt a regressor to a site",
    description="Takes unlabelled rows of a site: a form with the file part `inputs` (CSV, JSON lines, JSON, "
    'npy or npz), the file alone (then the fields stand in the query), or JSON `{"inputs": [[...], ...]}`. '
    "The body goes to the disk as it arrives. Answers with a job. The job learns from the confident answers "
    "how labels are distributed at the site, corrects the uncertain ones by it and trains a copy of the "
    "model (TASFAR); no label and no data of the source are needed. Its result is the evidence, the label "
    "density map and a decision; a version is published and switched to only when the evidence is for it, "
    "as the next version of the model or, with `site`, as the model `model@site`. An older version serves "
    "until then.",
    tag="Regression",
    fields=AdaptFields,
    file=FilePart(
        name=INPUT,
        noun="file of rows",
        example="rows.csv",
        types=(
            "text/csv",
            "application/csv",
            "application/x-ndjson",
            "application/jsonl",
            "application/x-npy",
            "application/zip",
        ),
        documented=("text/csv", "application/x-ndjson"),
        description="The rows: CSV (a header names the columns), JSON lines, JSON, npy or npz.",
        inline=False,
        max_bytes=_LARGEST_FILE,
    ),
    from_message=_from_message,
    work=Work(
        kind=KIND,
        run="nonet.services.adaptation.job:adapt",
        accept=_accept,
        rpc="Adapt",
        always=True,
        checks_fields=True,
        chooses_model=True,
        publishes=model_of,
        not_yours=not_yours,
        requires=("torch", "onnxscript"),
        install="adapting needs {missing}; install it with: pip install torch onnxscript",
    ),
    statuses=(403, 404, 409, 501),
)
