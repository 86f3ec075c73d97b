"""What an inference engine must do for Nonet: load, warm up, infer, unload, describe.

An engine sees named numpy arrays and nothing else of Nonet. Batching, isolation of bad items and checks of
the answer are done once, above it, in :class:`~nonet.runtime.backends.network.NetworkServable`.

Failures an engine may raise, and what they mean for the caller:

    BackendError
    ├── LoadError         the file cannot be loaded by this engine
    ├── InputsRejected    the engine refused these very inputs; another request may be fine
    └── OutOfMemory       the batch did not fit; a smaller one may

Their messages are for the log: engines put paths and internals into them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from nonet.runtime.hardware import lanes
from nonet.runtime.tensors import Array, TensorSpec

ENGINES = ("onnxruntime", "openvino", "onnxruntime_cuda", "onnxruntime_tensorrt", "tensorrt")
"""Engines by name; ``onnxruntime`` is always installed, the others are extras. The last three need a GPU and
are unverified."""

PRECISIONS = ("fp32", "bf16")
"""Arithmetic an engine may be asked for. fp32 is what the model file says."""

DEFAULT_ENGINE = "onnxruntime"
DEFAULT_PRECISION = "fp32"


class BackendError(Exception):
    """An engine failed; the message is for the log, never for a caller."""


class LoadError(BackendError):
    """The engine cannot load the file."""


class InputsRejected(BackendError):
    """The engine refused the inputs themselves (type, rank, size, text that is not UTF-8)."""


class OutOfMemory(BackendError):
    """The engine could not get the memory it needed."""


@dataclasses.dataclass(frozen=True, slots=True)
class BackendOptions:
    """How networks are loaded.

    Args:
        engine: an engine of :data:`ENGINES`, or ``auto``: the engine and precision that ``nonet models
            profile`` measured as the fastest correct ones on this machine, and where nothing was measured,
            ONNX Runtime in fp32. Name an engine to force it for all models.
        precision: with a named engine, one of :data:`PRECISIONS`; ``auto`` decides it by itself.
        threads: threads one execution may use. 1 gives the most throughput when requests arrive
            together, since executions then run side by side; raise it only for single large requests.
        concurrency: executions that may run at once; 0 means as many as the process has CPUs.
        largest_batch: rows of the network's largest batch, for engines that are built for it; 0 if it does
            not batch. The loader sets it.
        budget: within which networks stay in memory; None keeps them all.

    Raises ValueError for anything else.
    """

    engine: str = "auto"
    precision: str = DEFAULT_PRECISION
    threads: int = 1
    concurrency: int = 0
    largest_batch: int = 0
    budget: NetworkBudget | None = None

    def __post_init__(self) -> None:
        if self.engine not in ("auto", *ENGINES):
            raise ValueError(f"engine must be one of auto, {', '.join(ENGINES)}; got {self.engine!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {self.precision!r}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")
        if self.concurrency < 0:
            raise ValueError(f"concurrency must be 0 (all CPUs) or more, got {self.concurrency}")

    @property
    def lanes(self) -> int:
        """Executions that may run at once, with 0 resolved to the number of CPUs."""
        return self.concurrency or lanes()


class LoadedNetwork(Protocol):
    """One network in one engine. ``infer`` may be called from several threads at once."""

    def warm_up(self, inputs: Mapping[str, Array]) -> None:
        """Run once so that lazily built kernels and buffers for these shapes exist."""
        ...

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Compute the named outputs.

        Args:
            inputs: arrays by input name, in the in-memory types of :mod:`nonet.runtime.tensors`.
            outputs: the names wanted, at least one.

        Returns the arrays by name, owned by the caller. Raises InputsRejected, OutOfMemory or BackendError.
        """
        ...

    def release_memory(self, inputs: Mapping[str, Array]) -> None:
        """Give back what earlier runs needed and nothing uses now; the next large batch takes it again.

        ``inputs``: small valid ones, for engines that only do it with a run. Cheap, and harmless while other
        threads call ``infer``; never raises for the inputs' sake.
        """
        ...

    def unload(self) -> None:
        """Free the network and give its memory back to the system. No call may follow."""
        ...

    def describe(self) -> dict[str, Any]:
        """JSON-able facts: ``engine``, ``engine_version``, ``precision``, ``threads``."""
        ...


class NetworkBudget(Protocol):
    """Who decides which networks stay in memory."""

    @property
    def limit(self) -> int:
        """Bytes that networks may take together."""
        ...

    def load(self, size: int, load: Callable[[], LoadedNetwork]) -> LoadedNetwork:
        """A network that counts with ``size`` bytes and is loaded with ``load``, now and whenever it has to
        come back. Raises what ``load`` does."""
        ...


class Backend(Protocol):
    """An engine: it turns an ONNX file into a :class:`LoadedNetwork`."""

    @property
    def name(self) -> str: ...

    @property
    def platform(self) -> str:
        """What metadata shows as ``platform``, in Triton's words where Triton has the engine."""
        ...

    @property
    def version(self) -> str: ...

    def precisions(self) -> tuple[str, ...]:
        """What this engine can compute in on this machine; ``fp32`` is always among them."""
        ...

    def load(
        self,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        precision: str,
        options: BackendOptions,
    ) -> LoadedNetwork:
        """Load the ONNX file at ``path``.

        ``inputs`` and ``outputs`` are all tensors that will be fed and asked for. Raises LoadError or
        OutOfMemory.
        """
        ...
