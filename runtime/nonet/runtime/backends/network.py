"""A network as an OIP model: batches are concatenated, run once and split again.

Guarantees:
- one outcome per request, in order; a request that makes the engine fail, or whose answer is not finite,
  fails alone;
- a batch that fails is halved until the culprits stand alone (which also answers what fits when memory is
  short), so n requests with one culprit cost at most 2 log2(n) + 1 further runs;
- an answer owns its memory: it does not keep the batch it came from alive.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from nonet.runtime.backends.contract import BackendError, InputsRejected, LoadedNetwork, OutOfMemory
from nonet.runtime.backends.samples import SampleInputs
from nonet.runtime.errors import (
    InsufficientStorage,
    Internal,
    InvalidArgument,
    ModelOutputInvalid,
    ServingError,
    Unprocessable,
)
from nonet.runtime.requests import InferRequest, InferResponse, Outcome, Timings
from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import Array, DataType, Tensor, TensorSpec

logger = logging.getLogger(__name__)

_WARM_UP_EVERY_SIZE_TO = 8
_WARM_UP_SECONDS = 0.5


class NetworkServable:
    """Implements :class:`~nonet.runtime.servable.Servable` over one loaded network.

    Args:
        info: what is known of it.
        network: the engine's side of it.
        samples: makes inputs that fit it.
        read_file: reads further files of its version, which services need.
    """

    def __init__(
        self,
        info: ModelInfo,
        network: LoadedNetwork,
        samples: SampleInputs,
        read_file: Callable[[str], bytes] | None = None,
    ) -> None:
        self._info = info
        self._network = network
        self._samples = samples
        self._read_file = read_file
        self._output_specs = {spec.name: spec for spec in info.outputs}

    @property
    def info(self) -> ModelInfo:
        return self._info

    def execute(self, batch: Sequence[InferRequest]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for group in self._groups(batch):
            outcomes += self._answer(group)
        return outcomes

    def sample_request(self, rows: int) -> InferRequest:
        return InferRequest(
            model=self._info.name, version=self._info.version, inputs=self._samples.make(rows)
        )

    def warm_up(self) -> None:
        """Run at the batch sizes that will be used. Raises BackendError if the network cannot run at all.

        One row always runs, then the largest batch and the sizes between, until half a second went into it;
        a batch that must take longer than that by the first row is left out, so that a slow network does not
        hold up the start. For a network with free sizes, sizes are tried until
        one runs; if none does, it is served unwarmed, since only the caller knows what it takes.
        """
        started = time.perf_counter()
        try:
            self._warm_up(started)
        finally:
            self.release_memory()

    def release_memory(self) -> None:
        """Give back what large batches took and nothing uses now; cheap, and harmless while requests run."""
        self._network.release_memory({tensor.name: tensor.data for tensor in self._samples.make(1)})

    def _warm_up(self, started: float) -> None:
        if not self._find_sample_sizes():
            logger.warning(
                "model %s: no sample input found that runs; served without warm-up", self._info.name
            )
            return
        alone = time.perf_counter() - started
        for rows in warm_up_sizes(self._info.max_batch_size)[:0:-1]:
            if alone * rows > _WARM_UP_SECONDS:
                continue
            self._network.warm_up({tensor.name: tensor.data for tensor in self._samples.make(rows)})
            if time.perf_counter() - started > _WARM_UP_SECONDS:
                return

    def read_file(self, name: str) -> bytes:
        """Content of a further file of the version. Raises FileNotFoundError if there are none, else as
        :meth:`~nonet.runtime.repository.companions.Companions.read`."""
        if self._read_file is None:
            raise FileNotFoundError(name)
        return self._read_file(name)

    def close(self) -> None:
        self._network.unload()

    def _find_sample_sizes(self) -> bool:
        while True:
            try:
                self._network.warm_up({tensor.name: tensor.data for tensor in self._samples.make(1)})
            except OutOfMemory:
                raise
            except BackendError:
                if not self._samples.has_free_sizes:
                    raise
                if not self._samples.try_next_size():
                    return False
            else:
                return True

    def _groups(self, batch: Sequence[InferRequest]) -> Iterator[Sequence[InferRequest]]:
        """Cut the batch where the network's largest batch would be exceeded; one by one if it has none."""
        limit = self._info.max_batch_size
        start = rows = 0
        for position, request in enumerate(batch):
            more = _rows(request)
            if position > start and rows + more > limit:
                yield batch[start:position]
                start, rows = position, 0
            rows += more
        if start < len(batch):
            yield batch[start:]

    def _answer(self, group: Sequence[InferRequest]) -> list[Outcome]:
        """Run a group; halve it when it fails."""
        started = time.perf_counter()
        try:
            arrays = self._run(group)
        except Exception as error:  # an engine may fail in any way; the way must not reach the peers
            if len(group) > 1:
                middle = len(group) // 2
                return self._answer(group[:middle]) + self._answer(group[middle:])
            return [self._failure(group[0], error)]
        compute = time.perf_counter() - started
        return list(self._split(group, arrays, compute))

    def _run(self, group: Sequence[InferRequest]) -> dict[str, Array]:
        inputs = {
            first.name: first.data
            if len(group) == 1
            else np.concatenate([_input(request, first.name) for request in group], axis=0)
            for first in group[0].inputs
        }
        wanted = dict.fromkeys(name for request in group for name in self._wanted(request))
        return self._network.infer(inputs, list(wanted))

    def _wanted(self, request: InferRequest) -> list[str]:
        return [output.name for output in request.outputs] or list(self._output_specs)

    def _split(
        self, group: Sequence[InferRequest], arrays: dict[str, Array], compute: float
    ) -> Iterator[Outcome]:
        batches = self._info.max_batch_size > 0
        total = sum(_rows(request) for request in group) if batches else 1
        # Numbers that are finite in the whole batch need no look at each row of it.
        finite = {name for name, array in arrays.items() if self._is_finite(name, array)}
        start = 0
        for request in group:
            stop = start + (_rows(request) if batches else 1)
            try:
                outputs = []
                for name in self._wanted(request):
                    array = arrays[name]
                    if batches and (array.ndim == 0 or array.shape[0] != total):
                        raise _bad_shape(self._output_specs[name], array)
                    rows = array[start:stop].copy() if len(group) > 1 else np.ascontiguousarray(array)
                    outputs.append(self._checked(name, rows, finite=name in finite))
            except ModelOutputInvalid as error:
                logger.info("model %s version %s: %s", self._info.name, self._info.version, error.message)
                yield error
            else:
                yield InferResponse(
                    model=self._info.name,
                    version=self._info.version,
                    outputs=tuple(outputs),
                    id=request.id,
                    timings=Timings(compute=compute),
                    batch_size=total,
                )
            start = stop

    def _checked(self, name: str, array: Array, *, finite: bool) -> Tensor:
        spec = self._output_specs[name]
        if array.dtype != spec.datatype.numpy:
            raise ModelOutputInvalid(f"output '{name}' is {array.dtype}, not {spec.datatype} as declared")
        if not spec.admits(array.shape):
            raise _bad_shape(spec, array)
        if not finite and not self._is_finite(name, array):
            raise ModelOutputInvalid(f"output '{name}' holds NaN or infinite values")
        return Tensor(name, spec.datatype, array)

    def _is_finite(self, name: str, array: Array) -> bool:
        """Whether an output's numbers are what the model may give; only floats can be anything else."""
        if self._info.allow_nonfinite or array.dtype.kind not in "fV":
            return True
        return bool(np.isfinite(array).all())

    def _failure(self, request: InferRequest, error: Exception) -> ServingError:
        """The caller's version of what went wrong with one request run alone; the log gets the rest."""
        name = self._info.name
        # A caller can cause the refusal of an input at will, and must not be able to fill the log with it.
        level = logging.INFO if isinstance(error, InputsRejected | ServingError) else logging.WARNING
        logger.log(level, "model %s version %s failed on a request: %s", name, self._info.version, error)
        if isinstance(error, ServingError):
            return error
        if isinstance(error, OutOfMemory | MemoryError):
            return InsufficientStorage(
                f"model '{name}' ran out of memory on this request; send fewer rows", code="OUT_OF_MEMORY"
            )
        if isinstance(error, InputsRejected):
            return InvalidArgument(f"model '{name}' does not accept inputs of this shape or content")
        if isinstance(error, BackendError) and _depends_on_input(self._info, request):
            return Unprocessable(
                f"model '{name}' cannot process inputs of this shape or content",
                code="MODEL_EXECUTION_FAILED",
            )
        return Internal(f"model '{name}' failed to execute", code="MODEL_EXECUTION_FAILED")


def warm_up_sizes(max_batch_size: int) -> list[int]:
    """Batch sizes worth warming up: all of a small range, then powers of two, and the largest."""
    if max_batch_size <= _WARM_UP_EVERY_SIZE_TO:
        return list(range(1, max(1, max_batch_size) + 1))
    return doubling_sizes(max_batch_size)


def doubling_sizes(max_batch_size: int) -> list[int]:
    """1, 2, 4, ... below the largest batch size, and that one; [1] for a network that does not batch."""
    sizes = [1]
    while sizes[-1] * 2 < max_batch_size:
        sizes.append(sizes[-1] * 2)
    return sizes if max_batch_size <= 1 else [*sizes, max_batch_size]


def _rows(request: InferRequest) -> int:
    shape = request.inputs[0].shape if request.inputs else ()
    return shape[0] if shape else 1


def _input(request: InferRequest, name: str) -> Array:
    tensor = request.input(name)
    if tensor is None:
        raise InvalidArgument(f"input '{name}' is missing", param=name)
    return tensor.data


def _bad_shape(spec: TensorSpec, array: Array) -> ModelOutputInvalid:
    return ModelOutputInvalid(
        f"output '{spec.name}' has shape {list(array.shape)}, not {list(spec.shape)} as declared"
    )


def _depends_on_input(info: ModelInfo, request: InferRequest) -> bool:
    """Whether values or sizes the caller chose can make this network fail: free sizes, indices, text."""
    first_free = 1 if info.max_batch_size > 0 else 0
    if any(-1 in spec.shape[first_free:] for spec in info.inputs):
        return True
    return any(
        not tensor.datatype.is_float and tensor.datatype is not DataType.BOOL for tensor in request.inputs
    )
