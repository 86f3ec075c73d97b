"""TensorRT on an NVIDIA GPU, with engines built from the repository's ONNX files.

Unverified: engines are built in the tests, but no GPU was at hand to run one. It is never chosen by itself:
`nonet models profile` admits it only where its answers agree with ONNX Runtime's, and ``repository.engine``
forces it. It needs ``tensorrt`` or ``tensorrt_rtx``, and ``cuda-python``.

Each concurrent execution has an execution context and a stream. A network's types are those of its file.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nonet.runtime.backends.contract import (
    BackendError,
    BackendOptions,
    InputsRejected,
    LoadError,
    OutOfMemory,
)
from nonet.runtime.backends.tensorrt_engine import EngineCache, EngineRequest, tensorrt_module
from nonet.runtime.profile import cache_folder
from nonet.runtime.tensors import Array, TensorSpec

__all__ = ["TensorRtBackend"]


class TensorRtBackend:
    """The ``tensorrt`` engine; fp32 only (the types of the file). Raises LoadError where it cannot be."""

    name = "tensorrt"
    platform = "tensorrt_plan"

    def __init__(self) -> None:
        self._tensorrt: Any = tensorrt_module()
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise LoadError("the engine tensorrt needs cuda-python") from error
        self._cuda: Any = runtime
        try:
            facts = _done(runtime, runtime.cudaGetDeviceProperties(0))
            driver = _done(runtime, runtime.cudaDriverGetVersion())
        except BackendError as error:
            raise LoadError(f"the engine tensorrt needs an NVIDIA GPU: {error}") from error
        name = facts.name.decode() if isinstance(facts.name, bytes) else str(facts.name)
        self._gpu = f"{name} {facts.major}.{facts.minor} driver {driver}"

    @property
    def version(self) -> str:
        return str(self._tensorrt.__version__)

    def precisions(self) -> tuple[str, ...]:
        return ("fp32",)

    def load(
        self,
        path: Path,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        precision: str,
        options: BackendOptions,
    ) -> TensorRtNetwork:
        if precision not in self.precisions():
            raise LoadError(f"tensorrt computes in the types of the file only, not in {precision}")
        request = EngineRequest(path, tuple(inputs), options.largest_batch, self._gpu)
        plan = EngineCache(cache_folder() / "engines").engine(request)
        runtime = self._tensorrt.Runtime(self._tensorrt.Logger(self._tensorrt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise LoadError("TensorRT cannot load the engine that it built")
        return TensorRtNetwork(self._cuda, runtime, engine, outputs, self.version, options)


class TensorRtNetwork:
    """An engine, and a context for each concurrent execution."""

    def __init__(
        self,
        cuda: Any,
        runtime: Any,
        engine: Any,
        outputs: Sequence[TensorSpec],
        version: str,
        options: BackendOptions,
    ) -> None:
        self._cuda = cuda
        self._keep: Any = (runtime, engine)  # a context must not outlive them
        self._outputs = {spec.name: spec for spec in outputs}
        self._version = version
        self._options = options
        self._contexts: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
        for _ in range(options.lanes):
            context = engine.create_execution_context()
            if context is None:
                raise OutOfMemory("TensorRT has no memory for another execution context")
            self._contexts.put((context, _done(cuda, cuda.cudaStreamCreate())))

    def warm_up(self, inputs: Mapping[str, Array]) -> None:
        self.infer(inputs, list(self._outputs))

    def infer(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        if self._keep is None:
            raise BackendError("the network was unloaded")
        context, stream = self._contexts.get()
        try:
            with contextlib.ExitStack() as buffers:
                return self._run(context, stream, buffers, inputs, outputs)
        finally:
            self._contexts.put((context, stream))

    def release_memory(self, inputs: Mapping[str, Array]) -> None:
        """Nothing: buffers live as long as an execution, and contexts as long as the network."""

    def unload(self) -> None:
        while not self._contexts.empty():
            context, stream = self._contexts.get()
            del context
            _done(self._cuda, self._cuda.cudaStreamDestroy(stream))
        self._keep = None

    def describe(self) -> dict[str, Any]:
        return {
            "engine": "tensorrt",
            "engine_version": self._version,
            "precision": "fp32",
            "threads": self._options.threads,
            "verified": False,
        }

    def _run(
        self,
        context: Any,
        stream: Any,
        buffers: contextlib.ExitStack,
        inputs: Mapping[str, Array],
        outputs: Sequence[str],
    ) -> dict[str, Array]:
        cuda = self._cuda
        copy = cuda.cudaMemcpyKind
        held = []  # host memory must stay until the stream is done with it
        for name, array in inputs.items():
            source = np.ascontiguousarray(array)
            held.append(source)
            if not context.set_input_shape(name, source.shape):
                raise InputsRejected(f"input '{name}' of shape {list(source.shape)} is outside the profile")
            place = self._memory(buffers, source.nbytes)
            _done(
                cuda,
                cuda.cudaMemcpyAsync(
                    place, source.ctypes.data, source.nbytes, copy.cudaMemcpyHostToDevice, stream
                ),
            )
            context.set_tensor_address(name, place)
        answers: dict[str, Array] = {}
        places = {}
        for name, spec in self._outputs.items():
            answers[name] = np.empty(tuple(context.get_tensor_shape(name)), dtype=spec.datatype.numpy)
            places[name] = self._memory(buffers, answers[name].nbytes)
            context.set_tensor_address(name, places[name])
        if not context.execute_async_v3(stream):
            raise BackendError("TensorRT could not run the network")
        for name in outputs:
            answer = answers[name]
            _done(
                cuda,
                cuda.cudaMemcpyAsync(
                    answer.ctypes.data, places[name], answer.nbytes, copy.cudaMemcpyDeviceToHost, stream
                ),
            )
        _done(cuda, cuda.cudaStreamSynchronize(stream))
        return {name: answers[name] for name in outputs}

    def _memory(self, buffers: contextlib.ExitStack, size: int) -> int:
        place = int(_done(self._cuda, self._cuda.cudaMalloc(max(size, 1))))
        buffers.callback(self._cuda.cudaFree, place)
        return place


def _done(cuda: Any, result: Any) -> Any:
    """What a call of the CUDA runtime returned beside its status. Raises BackendError or OutOfMemory."""
    status, *values = result
    if status == cuda.cudaError_t.cudaErrorMemoryAllocation:
        raise OutOfMemory("the GPU is out of memory")
    if status != cuda.cudaError_t.cudaSuccess:
        raise BackendError(f"CUDA says {status}")
    return values[0] if values else None
