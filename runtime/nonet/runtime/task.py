"""What a service is to the gateway: tasks, long work and resources, each one object in the service's folder.

A gateway reads everything that callers see from these objects: routes, fields, checks, gRPC methods,
OpenAPI, pages, the jobs that a request may become. So a task is written once, where its service is, and no
file of the gateway names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from nonet.runtime.composition import Composition
from nonet.runtime.errors import PermissionDenied, ServingError
from nonet.runtime.host import Host
from nonet.runtime.requests import InferRequest, InferResponse, Parameter
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import Tensor

__all__ = [
    "WHOLE",
    "Accepted",
    "Blob",
    "BlobDescription",
    "Event",
    "FilePart",
    "ModelChoice",
    "Page",
    "Question",
    "Resource",
    "Service",
    "ServiceLimits",
    "Task",
    "Upload",
    "Work",
]


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("int_type", "a truth value is no number")
    return value


WHOLE = BeforeValidator(_no_bool)
"""Of a whole number: 5, 5.0 and the text "5" are one, true is none. To stand after its bounds."""

ModelChoice = Annotated[
    str,
    Field(
        min_length=1,
        max_length=256,
        description="`auto`, the name of a family (its best member that is in time), or one model's name.",
    ),
]
"""The field ``model`` of a task whose models form families."""


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """What a request asks of a model: the service's input tensors, and parameters that change the answer.

    ``drawn``: something in it was drawn at random for this request, so no other will be equal to it and its
    answer is not worth keeping.
    """

    inputs: tuple[Tensor, ...]
    parameters: Mapping[str, Parameter] = dataclasses.field(default_factory=dict)
    drawn: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Blob:
    """An answer that is a file.

    Args:
        content: the bytes.
        content_type: their media type.
        headers: further headers of the HTTP answer, by name.
        field: the bytes' field in the gRPC response.
        facts: further fields of the gRPC response.
    """

    content: bytes
    content_type: str
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    field: str = "content"
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)


Answer = Mapping[str, Any] | Blob


@dataclasses.dataclass(frozen=True, slots=True)
class BlobDescription:
    """What OpenAPI says of an answer that is a file: a sentence, its media types, its headers by name, each
    with the type (``string`` or ``number``) and a sentence."""

    description: str
    content_types: tuple[str, ...]
    headers: Mapping[str, tuple[str, str]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class FilePart:
    """The part of a request that is bytes.

    Args:
        name, noun: its field, and what messages call it, e.g. ``image``.
        example: a file's name for the messages, e.g. ``photo.jpg``.
        types: media types of a body that is the file alone; ``image/*`` stands for a family. Beside them
            none and ``application/octet-stream`` are taken.
        documented: media types that OpenAPI names.
        description: of the field.
        inline: whether the file may be base64 or a ``data:`` URL in a field; else a JSON body is itself the
            file.
        empty_code: error code of an empty file.
        optional: whether it may be left out (it is empty then); only of several ``files``.
        max_bytes: bound of a file that goes to the disk, if below the operator's; 0 for none.
    """

    name: str
    noun: str
    example: str
    types: tuple[str, ...]
    documented: tuple[str, ...]
    description: str
    inline: bool = True
    empty_code: str | None = None
    optional: bool = False
    max_bytes: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """A page of the playground: its path, what links to it say, and its HTML in the service's package."""

    path: str
    title: str
    package: str
    file: str = "page.html"


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """One of several answers to a request: its name on the event stream, and its data."""

    name: str
    data: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceLimits:
    """What an operator allows one request of any service.

    Args:
        image_bytes: size of an encoded image.
        image_pixels: width times height of an image or a capture.
        upload_bytes: size of a file that goes to the disk.
        unsafe_score: score, above 0 to 1, from which a picture that a service makes is withheld as not safe
            to show; 0 looks at none.
    """

    image_bytes: int = 32 << 20
    image_pixels: int = 64_000_000
    upload_bytes: int = 1 << 30
    unsafe_score: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    """A request that becomes a job, before it is one.

    Args:
        path: its file.
        folder: the job's own folder; what is left there is the job's input.
        values: the fields beside the file, by name; checked only if the task checks its fields.
        fields: the task's fields, or None if the work checks them itself.
        model: the version that was chosen, or None if the work names no model.
        repository: folder of the model repository.
        limits: the operator's.
        in_query: names of the ``values`` that the query gave: a field inside the file goes before.
    """

    path: Path
    folder: Path
    values: Mapping[str, Any]
    fields: Any
    model: ModelInfo | None
    repository: Path
    limits: ServiceLimits
    in_query: Collection[str] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """What an upload is accepted as.

    Args:
        spec: what the worker needs to know, JSON-able.
        digest: tells equal requests (hex): repeated under one idempotency key they are one job.
        subject: what it works on, e.g. the name of a building; "" takes the uploaded file's name.
        requirements: words that a worker must have beside the kind, e.g. ``engine:openvino``.
    """

    spec: Mapping[str, Any]
    digest: str
    subject: str = ""
    requirements: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Work:
    """The same request as a job.

    Args:
        kind: of the job, e.g. ``images.render``.
        run: ``"module:function"``, imported in the worker's process only and called with a
            :class:`~nonet.runtime.job_context.JobContext`; returns the job's result.
        accept: checks an upload and leaves the job's input in its folder; blocks, raises ServingErrors.
        rpc: the gRPC method that submits; of the same service as the task's.
        always: whether every request becomes a job; else only those that prefer it.
        checks_fields: whether ``accept`` judges the fields itself, since the file may hold some.
        chooses_model: whether a model is chosen at the submit, by the field ``model``.
        subject: the field that names what is worked on, known before the file is read; "" if none.
        publishes: of the subject, the name of the model that the job publishes a version of; raises
            InvalidArgument for a subject that cannot be one. None if it publishes none.
        not_yours: what a tenant is told who wants to change the model of another.
        requires: modules without which the work cannot be done; ``install`` says how to get them.
        headers: of a job's result, the headers of the file that it made.
    """

    kind: str
    run: str
    accept: Callable[[Upload], Accepted]
    rpc: str
    always: bool = False
    checks_fields: bool = False
    chooses_model: bool = False
    subject: str = ""
    publishes: Callable[[str], str] | None = None
    not_yours: Callable[[str], ServingError] = lambda subject: PermissionDenied(
        f"'{subject}' belongs to another tenant", code="MODEL_NOT_YOURS"
    )
    requires: tuple[str, ...] = ()
    install: str = ""
    headers: Callable[[Mapping[str, Any]], Mapping[str, str]] = lambda result: {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a service can be asked, over every face.

    Args:
        name: of the task, as the models' ``task`` says, e.g. ``segmentation``.
        path: of ``POST``; may hold parameters in braces, which are fields too.
        rpc: the full gRPC method, e.g. ``nonet.v1.Service/Method``; one that streams gives every answer.
        stream_rpc: a further, server-streaming method of the same service; "" for none.
        title, description, tag: for people.
        fields: a pydantic dataclass: the one source of JSON, form, query and message fields.
        ask: from checked fields and the file's bytes to the question; of a task with several ``files``, their
            bytes as a tuple.
        answer: from the model and its response to what callers see; bytes in a mapping are base64 in JSON.
        response: a pydantic model that documents the answer, or the description of a file.
        file: the part that is bytes.
        files: the parts that are bytes, in place of ``file``, where a request has several, all needed but the
            optional ones. They come in a form or in JSON, none as the whole body, and never become a job.
        find: finds the model for given path parameters; by default the field ``model`` chooses among the
            task's.
        input_field: the field that callers know as the service's input, where its tensor has another name.
        from_message: from a gRPC message's fields, as plain values, to those of ``fields``.
        to_message: from an answer, or the data of an event, to the fields of the gRPC response.
        rank: the quality figure that orders a family, the larger the better.
        work: the same request as a job.
        event: from fields, model, response and its number to one of several answers, or to some of them;
            asked for by the field ``stream``, and always over gRPC.
        cost: how much work a request to a model is, in units of one row of the measured sample. A
            ServingError says that the model does not take the request: it never waits, and ``auto`` passes
            the model over.
        max_bytes: bound of a request without a file, e.g. of a JSON body; 0 for the face's own.
        page: its page of the playground.
        statuses: HTTP statuses of its failures beside those that every task has.
        accepts: further media types of the answer, each with what the fields are for a caller whose
            ``Accept`` prefers it and who does not give them; JSON, which goes before at equal preference, is
            not among them. The fields alone decide what ``answer`` gives.
        importer: ``"module:function"`` of a :data:`~nonet.runtime.network_import.Importer`, which makes a
            version of a network's file from elsewhere; "" if the task takes none.
        composition: what a request to a model of the task needs of other served models first, over every
            face; None if nothing.
    """

    name: str
    path: str
    rpc: str
    title: str
    description: str
    tag: str
    fields: type[Any]
    stream_rpc: str = ""
    ask: Callable[[Any, Any], Question] | None = None
    answer: Callable[[ModelInfo, InferResponse, Any], Answer] | None = None
    response: Any = None
    file: FilePart | None = None
    files: tuple[FilePart, ...] = ()
    find: Callable[[Host, Mapping[str, str]], Awaitable[ModelInfo]] | None = None
    input_field: str = ""
    from_message: Callable[[dict[str, Any]], dict[str, Any]] = lambda values: values
    to_message: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda values: values
    rank: str = "top1"
    work: Work | None = None
    event: Callable[[Any, ModelInfo, InferResponse, int], Event | Sequence[Event]] | None = None
    cost: Callable[[InferRequest, ModelInfo], float] | None = None
    max_bytes: int = 0
    page: Page | None = None
    statuses: tuple[int, ...] = ()
    accepts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    importer: str = ""
    composition: Composition | None = None

    @property
    def parts(self) -> tuple[FilePart, ...]:
        """The parts that are bytes."""
        return self.files if self.file is None else (self.file,)

    @property
    def streams(self) -> bool:
        """Whether a request may have several answers."""
        return self.event is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resource:
    """A handler of a service that is no inference: list, describe, delete.

    Args:
        verb, path: ``GET`` or ``DELETE``; the path may hold parameters in braces.
        rpc: the full gRPC method, whose message has the parameters as fields; "" for none.
        title, description, tag: for people.
        handle: given the host, the parameters and the tenant, the answer; None for an empty one (204).
        response: as in :class:`Task`; None for an empty answer.
        statuses: HTTP statuses of its failures beside those that every route has.
    """

    verb: str
    path: str
    rpc: str
    title: str
    description: str
    tag: str
    handle: Callable[[Host, Mapping[str, str], str], Awaitable[Answer | None]]
    response: Any = None
    statuses: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Service:
    """One folder of ``services``; a gateway finds it as ``SERVICE`` in the folder's module ``task``.

    Args:
        name, tasks, resources: of the folder, and what it offers.
        derive: given the operator's limits, what makes its servables of a network (none for networks of
            other tasks).
        descriptors: a compiled descriptor set of its ``.proto``, if that is not one of the project's own.
        opener: ``module:function`` that makes a servable of the folder of a checkpoint as another library
            keeps it, given its name, the folder, a device of PyTorch and the operator's limits; "" if the
            service takes none. Imported only where an operator names such a folder. It raises ModelRefused.
    """

    name: str
    tasks: tuple[Task, ...]
    derive: Callable[[ServiceLimits], Callable[[Servable], Sequence[Servable]]]
    resources: tuple[Resource, ...] = ()
    descriptors: bytes = b""
    opener: str = ""
