"""What can be served: a network behind a backend, or a service that wraps one. Both are OIP models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from nonet.runtime.requests import InferRequest, Outcome
from nonet.runtime.tensors import TensorSpec


@dataclasses.dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of one loaded model version; immutable.

    Args:
        name: OIP model name, unique in the catalog.
        version: decimal text, as Triton writes it.
        digest: sha256 (hex) over everything that decides the answers: the version's files and the options
            of the backend (engine, precision). Enters the cache key.
        platform: e.g. ``onnxruntime_onnx`` or ``nonet_service``.
        inputs, outputs: specs; shapes include the batch dimension (-1) when ``max_batch_size`` > 0.
        max_batch_size: largest batch in one execution; 0 means the model does not batch.
        task: ``classification``, ... or "" for a bare network without a task.
        family: name of the family the version belongs to ("" if none); members are ladder steps.
        quality: measured quality on unseen data, e.g. ``{"top1": 0.71}``.
        network: for a service, the name of the network it wraps; else "".
        labels: class names by index, empty if none.
        allow_nonfinite: whether NaN and infinities are accepted as binary input and given as output.
        cacheable: whether equal requests have equal answers.
        shadow_rows: above 0 for a version that answers nobody who does not name it, but so many rows of live
            requests beside the version that serves; then it is judged.
        decoupled: whether one request may have several answers, the last of which is the final one.
        config: the Triton model configuration as JSON-able data (what ``/config`` returns).
        details: further facts for ``/v1/models`` (licence, source system, engine, precision...).
    """

    name: str
    version: str
    digest: str
    platform: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int = 0
    task: str = ""
    family: str = ""
    quality: Mapping[str, float] = dataclasses.field(default_factory=dict)
    network: str = ""
    labels: tuple[str, ...] = ()
    allow_nonfinite: bool = False
    cacheable: bool = True
    shadow_rows: int = 0
    decoupled: bool = False
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@runtime_checkable
class HasFiles(Protocol):
    """A servable whose version has further files, e.g. a vocabulary that its service needs."""

    def read_file(self, name: str) -> bytes:
        """Content of one of them; raises what says why not."""
        ...


@runtime_checkable
class HoldsMemory(Protocol):
    """A servable whose engine keeps the memory of its largest batch for the next one."""

    def release_memory(self) -> None:
        """Give back what nothing uses now; harmless while requests run."""
        ...


class Servable(Protocol):
    """A loaded model version that executes batches. Thread-safe: several lanes may call it at once."""

    @property
    def info(self) -> ModelInfo: ...

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        """Answer every request of ``batch``, in order: one outcome each, the failure of one never another's.

        The requests are validated against ``info`` and agree in everything but the batch dimension and
        the tensors' values. Blocking; runs in a lane's thread. An exception (not returned, raised) means
        the whole batch failed.

        A model that works in steps returns :class:`~nonet.runtime.requests.Continued` for a request that is
        not finished; the next execution gets it again, with that state, in a batch with requests that may be
        at other steps.
        """
        ...

    def sample_request(self, rows: int) -> InferRequest:
        """A valid request of ``rows`` rows (1 if the model does not batch), for warm-up and profiling."""
        ...

    def warm_up(self) -> None:
        """Run once at the batch sizes that will be used, so that the first request is not the slowest."""
        ...

    def close(self) -> None:
        """Free what the version holds. Called once, after the last lease has gone."""
        ...
