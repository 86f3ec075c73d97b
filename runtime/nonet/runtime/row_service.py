"""Services that turn each row of a request (an image, a scan) into one row of a network's input, and the
network's rows into answers: what they have in common."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from nonet.runtime.errors import InvalidArgument, ServingError
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Parameter, Timings
from nonet.runtime.servable import ModelInfo, Servable
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec

__all__ = ["RowService", "in_row", "service_info"]

Noted = TypeVar("Noted")


class RowService(abc.ABC, Generic[Noted]):
    """Implements :class:`~nonet.runtime.servable.Servable` for a service with one input, BYTES [N].

    A request is read alone and fails alone, as a whole. The rows of all sound requests go through the network
    together, in as few executions as its largest batch allows, and each request gets the answers of its own
    rows. ``Noted`` is what :meth:`_read` finds in a request that its answer needs beside the network's.

    Args:
        network: the network; closed by its owner, after this service.
        info: of the service.
    """

    def __init__(self, network: Servable, info: ModelInfo) -> None:
        self._network = network
        self._info = info

    @property
    def info(self) -> ModelInfo:
        return self._info

    @abc.abstractmethod
    def _read(self, rows: Sequence[bytes]) -> tuple[Array, Noted]:
        """The network's input, as many rows as there are, 1 or more. Raises ServingError."""

    def _read_asked(self, rows: Sequence[bytes], parameters: Mapping[str, Parameter]) -> tuple[Array, Noted]:
        """The same, for a service whose reading depends on the request's parameters."""
        return self._read(rows)

    @abc.abstractmethod
    def _answer(self, outputs: Mapping[str, Array], noted: Noted) -> tuple[Tensor, ...]:
        """The outputs of the service, from those of the network by name; those are not to be written to."""

    @abc.abstractmethod
    def _sample(self) -> bytes:
        """A row like those that are sent, for warm-up and profiling; the same on every call."""

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        works = [self._begin(request) for request in batch]
        parts = [part for work in works if isinstance(work, _Work) for part in work.parts]
        answers = iter(self._network.execute(parts) if parts else ())
        return [
            self._finish(work, list(itertools.islice(answers, len(work.parts))))
            if isinstance(work, _Work)
            else work
            for work in works
        ]

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest(
            model=self._info.name,
            version=self._info.version,
            inputs=(Tensor.of_bytes(self._info.inputs[0].name, [self._sample()] * rows),),
        )

    def warm_up(self) -> None:
        """The network is warm when its service is made; this loads what reading needs. Raises what fails."""
        (outcome,) = self.execute([self.sample_request(1)])
        if isinstance(outcome, ServingError):
            raise outcome

    def close(self) -> None:
        """Nothing of its own to free: the network is closed by its owner."""

    def _begin(self, request: InferRequest) -> _Work[Noted] | ServingError:
        started = time.perf_counter()
        name = self._info.inputs[0].name
        tensor = request.input(name)
        rows: list[bytes] = [] if tensor is None else tensor.data.reshape(-1).tolist()
        if not rows:
            return InvalidArgument(f"{name}: at least one {name} is needed", param=name)
        try:
            values, noted = self._read_asked(rows, request.parameters)
        except ServingError as error:
            return error
        return _Work(request, tuple(self._parts(values)), noted, time.perf_counter() - started)

    def _parts(self, values: Array) -> Iterator[InferRequest]:
        """Requests to the network, none larger than its largest batch."""
        info = self._network.info
        step = max(1, info.max_batch_size)
        for start in range(0, len(values), step):
            rows = Tensor(info.inputs[0].name, DataType.FP32, values[start : start + step])
            yield InferRequest(model=info.name, version=info.version, inputs=(rows,))

    def _finish(self, work: _Work[Noted], answers: Sequence[Outcome]) -> Outcome:
        found: list[InferResponse] = []
        for answer in answers:
            if isinstance(answer, ServingError):
                return answer
            assert isinstance(answer, InferResponse)  # a network takes no steps
            found.append(answer)
        started = time.perf_counter()
        outputs = {
            tensor.name: _joined([each.output(tensor.name).data for each in found])
            for tensor in found[0].outputs
        }
        made = self._answer(outputs, work.noted)
        return InferResponse(
            model=self._info.name,
            version=self._info.version,
            outputs=made,
            id=work.request.id,
            timings=Timings(
                decode=work.decode,
                compute=sum(each.timings.compute for each in found),
                encode=time.perf_counter() - started,
            ),
            batch_size=max(1, *(each.batch_size for each in found)),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class _Work(Generic[Noted]):
    """A request that was read, in ``decode`` seconds, into requests to the network."""

    request: InferRequest
    parts: tuple[InferRequest, ...]
    noted: Noted
    decode: float


@contextlib.contextmanager
def in_row(row: int, rows: int, name: str) -> Iterator[None]:
    """What fails while row ``row`` of ``rows`` of the input ``name`` is read names the row, if there are
    several."""
    try:
        yield
    except ServingError as error:
        if rows == 1:
            raise
        message = f"row {row} of '{name}': {error.message.removeprefix(f'{name}: ')}"
        raise type(error)(
            message, param=error.param, code=error.code, retry_after=error.retry_after
        ) from None


def service_info(
    network: ModelInfo,
    prefix: str,
    *,
    facts: Any,
    takes: str | Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    max_batch_size: int,
    details: Mapping[str, Any],
) -> ModelInfo:
    """What is known of a service ``<prefix><network>``.

    Args:
        network: what is known of its network.
        prefix: of its name.
        facts: everything that decides its answers, the network's digest among it, JSON-able.
        takes: name of its input, BYTES [N], or its inputs, a row of each for a row of the answer.
        outputs: its outputs, a row for each of the input.
        max_batch_size: rows it takes at once.
        details: further facts beside the network's.
    """
    inputs = (TensorSpec(takes, DataType.BYTES, (-1,)),) if isinstance(takes, str) else tuple(takes)
    name = prefix + network.name
    return ModelInfo(
        name=name,
        version=network.version,
        digest=hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest(),
        platform="nonet_service",
        inputs=inputs,
        outputs=tuple(outputs),
        max_batch_size=max_batch_size,
        task=network.task,
        family=network.family,
        quality=network.quality,
        network=network.name,
        labels=network.labels,
        allow_nonfinite=network.allow_nonfinite,
        cacheable=network.cacheable,
        shadow_rows=network.shadow_rows,
        config={
            "name": name,
            "platform": "nonet_service",
            "max_batch_size": max_batch_size,
            "input": [_port(spec) for spec in inputs],
            "output": [_port(spec) for spec in outputs],
        },
        details={
            **network.details,
            "network": network.name,
            "family": network.family,
            "quality": dict(network.quality),
            **details,
        },
    )


def _port(spec: TensorSpec) -> dict[str, Any]:
    """A tensor as a model configuration declares it: without the batch, and a row of nothing as one value."""
    kind = "STRING" if spec.datatype is DataType.BYTES else spec.datatype.value
    port: dict[str, Any] = {
        "name": spec.name,
        "data_type": f"TYPE_{kind}",
        "dims": list(spec.shape[1:]) or [1],
    }
    if len(spec.shape) == 1:
        port["reshape"] = {"shape": []}
    if spec.optional:
        port["optional"] = True
    return port


def _joined(parts: Sequence[Array]) -> Array:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
