"""System shared memory between a gateway and a Triton server on the same machine.

Each lane has a region: the inputs of a request are written to its beginning, and outputs whose size is known
beforehand are read from behind them, so that neither passes through a message. What does not fit, or finds
no region free, travels in the message as ever. A region whose request did not end (a deadline, a caller that
left) is not used again, since Triton may still write to it; after twice as many of those as there
are lanes, all goes in messages until the gateway starts anew.

Triton opens the regions by name: it must run as the same user or one that may read and write them, and see
the same /dev/shm (in a container, ``--ipc=host``).
"""

from __future__ import annotations

import contextlib
import logging
import math
import mmap
import os
import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from nonet.runtime.servable import ModelInfo
from nonet.runtime.tensors import DataType, TensorSpec

logger = logging.getLogger(__name__)

_FOLDER = Path("/dev/shm")
_ALIGNMENT = 64

Call = Callable[[Any], Awaitable[Any]]


class _Region:
    """A shared memory object of this process, mapped."""

    def __init__(self, size: int) -> None:
        self.name = f"nonet-{os.getpid()}-{secrets.token_hex(6)}"
        self.size = size
        self.registered = False
        descriptor = os.open(_FOLDER / self.name, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)  # what is not there now would end the process later
            self.memory = mmap.mmap(descriptor, size)
        except BaseException:
            self.unlink()
            raise
        finally:
            os.close(descriptor)

    def unlink(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            (_FOLDER / self.name).unlink()

    def close(self) -> None:
        self.memory.close()
        self.unlink()


class TritonMemory:
    """The regions of one server; see the module's text. It belongs to the event loop.

    Args:
        size: bytes of a region.
        regions: how many there may be.

    ``passed`` counts the requests whose inputs went through them.
    """

    def __init__(self, size: int, regions: int) -> None:
        self._size = size
        self._left = 2 * regions  # to be made yet: as many may be lost as are used
        self._free: list[_Region] = []
        self.passed = 0

    async def exchange(
        self, sent: Any, info: ModelInfo, call: Call, look: Callable[..., Awaitable[Any]]
    ) -> Any:
        """Send an ``inference.ModelInferRequest``, with raw contents, and return the reply to it, likewise.

        Args:
            sent: the request; it is changed.
            info: of its model.
            call: sends it.
            look: calls a method of the protocol by its name, with the fields of the request.

        Raises AioRpcError as ``call`` does.
        """
        plan = _plan(sent, info, self._size)
        region = self._take() if plan else None
        if region is None:
            return await call(sent)
        whole = type(sent)()
        whole.CopyFrom(sent)
        try:
            if not region.registered:
                await look(
                    "SystemSharedMemoryRegister",
                    name=region.name,
                    key=f"/{region.name}",
                    byte_size=region.size,
                )
                region.registered = True
            places = _write(sent, region, plan)
            reply = await call(sent)
            _read(reply, region, places)
        except grpc.aio.AioRpcError as error:
            if "shared memory region" in (error.details() or ""):
                region.registered = False  # the server has started anew since, or cannot open it
                self._free.append(region)
                return await call(whole)
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._lose(region)
            else:
                region.registered = error.code() is not grpc.StatusCode.UNAVAILABLE
                self._free.append(region)
            raise
        except BaseException:
            self._lose(region)
            raise
        self._free.append(region)
        self.passed += 1
        return reply

    def close(self) -> None:
        """Free the regions that are not in use; call it when nothing is in flight."""
        self._left = 0
        for region in self._free:
            region.close()
        self._free.clear()

    def _take(self) -> _Region | None:
        if self._free:
            return self._free.pop()
        if not self._left:
            return None
        self._left -= 1
        try:
            return _Region(self._size)
        except OSError as error:
            logger.warning("no shared memory for Triton (%s): tensors go in messages", error.strerror)
            self._left = 0
            return None

    def _lose(self, region: _Region) -> None:
        region.close()
        if not self._left and not self._free:
            logger.warning("too many requests did not end: tensors for Triton go in messages from now on")


def _plan(sent: Any, info: ModelInfo, size: int) -> list[tuple[str, int]]:
    """The outputs that may be placed in a region of ``size`` bytes, with their own; [] where the inputs do
    not fit. An output of the plan with 0 bytes goes by message."""
    inputs = sum(_aligned(len(content)) for content in sent.raw_input_contents)
    if inputs == 0 or inputs > size:
        return []
    rows = sent.inputs[0].shape[0] if info.max_batch_size > 0 and sent.inputs[0].shape else 1
    wanted = {output.name for output in sent.outputs}
    left = size - inputs
    plan = []
    for spec in info.outputs:
        if wanted and spec.name not in wanted:
            continue
        needed = _size(spec, rows, batches=info.max_batch_size > 0)
        fits = 0 < _aligned(needed) <= left
        left -= _aligned(needed) if fits else 0
        plan.append((spec.name, needed if fits else 0))
    return plan


def _size(spec: TensorSpec, rows: int, *, batches: bool) -> int:
    """Bytes of an output, 0 if its size is not known beforehand."""
    shape = spec.shape[1:] if batches else spec.shape
    if spec.datatype is DataType.BYTES or -1 in shape:
        return 0
    return (rows if batches else 1) * math.prod(shape) * int(spec.datatype.numpy.itemsize)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _write(sent: Any, region: _Region, plan: list[tuple[str, int]]) -> dict[str, slice]:
    """Move the contents of a request into the region, and have the outputs of ``plan`` put behind them;
    returns where those will lie."""
    offset = 0
    for entry, content in zip(sent.inputs, sent.raw_input_contents, strict=True):
        region.memory[offset : offset + len(content)] = content
        _point(entry, region, offset, len(content))
        offset += _aligned(len(content))
    del sent.raw_input_contents[:]
    known = {entry.name: entry for entry in sent.outputs}
    places = {}
    for name, size in plan:
        entry = known.get(name)
        if entry is None:
            entry = sent.outputs.add(name=name)
        if size:
            _point(entry, region, offset, size)
            places[name] = slice(offset, offset + size)
            offset += _aligned(size)
    return places


def _point(entry: Any, region: _Region, offset: int, size: int) -> None:
    entry.parameters["shared_memory_region"].string_param = region.name
    entry.parameters["shared_memory_byte_size"].int64_param = size
    entry.parameters["shared_memory_offset"].int64_param = offset


def _read(reply: Any, region: _Region, places: dict[str, slice]) -> None:
    """Fetch what a reply has left in the region, as if it had come in the message."""
    sent = list(reply.raw_output_contents)
    if len(sent) < len(reply.outputs):  # only those that came in the message have an entry
        left = iter(sent)
        sent = [b"" if entry.name in places else next(left, b"") for entry in reply.outputs]
    for index, entry in enumerate(reply.outputs):
        if entry.name in places:
            sent[index] = region.memory[places[entry.name]]
            for name in ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"):
                entry.parameters.pop(name, None)
    reply.raw_output_contents[:] = sent
