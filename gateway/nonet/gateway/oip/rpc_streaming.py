"""The gRPC call ``ModelStreamInfer`` of the Open Inference Protocol: many inference requests on one stream.

Requests of a stream run side by side, at most ``window`` at a time; while so many are open the stream is read
no further, so gRPC's flow control slows the client down. Answers leave in the order of the requests, each as
soon as it and all before it are ready: clients tell answers apart by their order when they give no ids. A
request that fails has its error in its answer, and the stream goes on; a client that sets the metadata
``triton_grpc_error: true`` gets the first error as the status of the stream instead, as from Triton.

A model whose requests have several answers is served as Triton serves a decoupled one: each answer leaves as
soon as it is there, in whatever order with those of other requests, and its parameter
``triton_final_response`` says whether it is the last. A model that ends without a further answer is followed
by an empty one if the request asked for it (``triton_enable_empty_final_response``), and by nothing if not.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from nonet.gateway.core.call import Call
from nonet.gateway.core.data_plane import DataPlane
from nonet.gateway.core.upload_budget import Hold, UploadBudget
from nonet.gateway.grpc.rpc import Rpc, parse
from nonet.gateway.oip.rpc_inference import EMPTY_FINAL, Inference, encode
from nonet.runtime.errors import Internal, InvalidArgument, ServingError, Unauthenticated, Unavailable
from nonet.runtime.oip import proto_codec
from nonet.runtime.oip.messages import message

logger = logging.getLogger(__name__)

_STATUS_ERRORS = b"triton_grpc_error"

Reply = tuple[Any, ServingError | None]
"""A message of the stream, and the error in it if the request failed."""


@dataclasses.dataclass(slots=True, eq=False)
class InferenceStream:
    """See the module's text.

    Args:
        plane: the core.
        inference: reads single requests.
        window: requests of one stream that may be open at a time, >= 1.
        closing: set when the server stops; streams then finish what is open and end.
        uploads: accounts for the messages in flight.
    """

    plane: DataPlane
    inference: Inference
    window: int
    closing: asyncio.Event
    uploads: UploadBudget

    async def serve(self, requests: Any, rpc: Rpc) -> None:
        """One stream, from its first message to its end."""
        # Each request is taken from the quota when it comes; opening the stream is none.
        rpc.identify()
        room = asyncio.Semaphore(self.window)
        writing = asyncio.Lock()
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        over.set_result(None)

        def begin(raw: bytes) -> None:
            nonlocal over
            turn = _Turn(over)
            over = turn.over
            task = tasks.create_task(self._answer(raw, rpc, turn, writing))
            task.add_done_callback(lambda _: room.release())

        try:
            # A caller who leaves, or a failure that ends the stream, withdraws all that is open.
            async with asyncio.TaskGroup() as tasks:
                stopped = await self._read(aiter(requests), room, begin)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        if stopped:
            raise Unavailable("the server is draining; open the stream elsewhere", code="DRAINING")

    async def _read(self, messages: Any, room: asyncio.Semaphore, begin: Callable[[bytes], None]) -> bool:
        """Begin each request when there is room for it, until the client has sent its last. True if the
        server stops before."""
        end: asyncio.Future[Any] = asyncio.ensure_future(self.closing.wait())
        try:
            while True:
                await room.acquire()
                arrival: asyncio.Future[Any] = asyncio.ensure_future(anext(messages, None))
                try:
                    await asyncio.wait({arrival, end}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    arrival.cancel()  # one that is done stays as it is
                if not arrival.done() or arrival.cancelled():
                    return True
                if (raw := arrival.result()) is None:
                    return False
                begin(raw)
        finally:
            end.cancel()

    async def _answer(self, raw: bytes, rpc: Rpc, turn: _Turn, writing: asyncio.Lock) -> None:
        """Write all answers to one request. Raises the error that ends the stream."""
        status_errors = rpc.request_context.header(_STATUS_ERRORS).lower() == "true"
        arrived = time.monotonic()
        with self.uploads.open() as hold:
            async with contextlib.aclosing(self._replies(raw, rpc, arrived, hold, turn)) as replies:
                async for reply, error in replies:
                    await turn.come()
                    if error is not None and (status_errors or isinstance(error, Unauthenticated)):
                        raise error
                    async with writing:
                        await rpc.context.write(reply.SerializeToString())
        turn.end()

    async def _replies(
        self, raw: bytes, rpc: Rpc, arrived: float, hold: Hold, turn: _Turn
    ) -> AsyncGenerator[Reply, None]:
        stream_reply = message("inference.ModelStreamInferResponse")
        empty = message("inference.ModelInferResponse")()
        try:
            hold.take(len(raw))
            request = parse(message("inference.ModelInferRequest"), raw)
            empty.id = request.id
            empty.model_name = request.model_name
            async with contextlib.aclosing(self._answers(request, rpc.read(arrived), hold, turn)) as answers:
                async for model, reply in answers:
                    rpc.model = model
                    yield stream_reply(infer_response=reply), None
        except ServingError as error:
            yield stream_reply(error_message=error.message, infer_response=empty), error
        except Exception:
            logger.exception("a request of a stream failed")
            failure = Internal("internal error; the server's log has more")
            yield stream_reply(error_message=failure.message, infer_response=empty), failure

    async def _answers(
        self, request: Any, call: Call, hold: Hold, turn: _Turn
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """The name of the model, and each answer as a message. Raises ServingError."""
        with self.plane.admit():
            decoupled = self.inference.find(request).decoupled
            if decoupled:
                turn.leave()
            wants_end = EMPTY_FINAL in request.parameters and request.parameters[EMPTY_FINAL].bool_param
            decoded = await self.inference.decode(request, call, hold)
            if not decoupled:
                response = await self.plane.infer(decoded, admitted=True)
                yield response.model, _framed(await encode(response, decoded), final=True)
                return
            if any(output.memory is not None for output in decoded.outputs):
                raise InvalidArgument(
                    "a model that answers a request several times cannot write to shared memory: each answer "
                    "would take the place of the one before"
                )
            told = False
            async with contextlib.aclosing(self.plane.stream(decoded, admitted=True)) as responses:
                async for response in responses:
                    if response.final and response.repeats and told:
                        if not wants_end:
                            return
                        response = dataclasses.replace(response, outputs=(), parameters={})
                    told = True
                    reply = proto_codec.encode_response(response, decoded)
                    yield response.model, _framed(reply, final=response.final)


class _Turn:
    """The place of a request in the order in which the answers of a stream leave; ``over`` is done when the
    next may follow.

    Args:
        before: done when those before have left.
    """

    def __init__(self, before: asyncio.Future[None]) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._before = before
        self._left = False

    def leave(self) -> None:
        """Stand outside the order: others do not wait for this one, nor this one for them."""
        self._left = True
        self._before.add_done_callback(lambda _: self.over.set_result(None))

    async def come(self) -> None:
        """Wait for those before."""
        if not self._left:
            await asyncio.shield(self._before)

    def end(self) -> None:
        """All of the answer has left."""
        if not self._left:
            self.over.set_result(None)


def _framed(reply: Any, *, final: bool) -> Any:
    reply.parameters["triton_final_response"].bool_param = final
    return reply
