"""The gRPC call ``ModelStreamInfer`` of the Open Inference Protocol: many inference requests on one stream.

Requests of a stream run side by side, at most ``window`` at a time; while so many are open the stream is read
no further, so gRPC's flow control slows the client down. Answers leave in the order of the requests, each as
soon as it and all before it are ready: clients tell answers apart by their order when they give no ids. A
request that fails has its error in its answer, and the stream goes on; a client that sets the metadata
``triton_grpc_error: true`` gets the first error as the status of the stream instead, as from Triton.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from nonet.gateway.core.upload_budget import Hold, UploadBudget
from nonet.gateway.grpc.rpc import Rpc, parse
from nonet.gateway.oip.rpc_inference import Inference
from nonet.runtime.errors import Internal, ServingError, Unauthenticated, Unavailable
from nonet.runtime.oip import proto_codec
from nonet.runtime.oip.messages import message

__all__ = ["InferenceStream"]

logger = logging.getLogger(__name__)

_STATUS_ERRORS = b"triton_grpc_error"

Reply = tuple[Any, ServingError | None]
"""The answer of one request, and the error in it if it failed."""


class InferenceStream:
    """See the module's text.

    Args:
        inference: answers single requests.
        window: requests of one stream that may be open at a time, >= 1.
        closing: set when the server stops; streams then finish what is open and end.
        uploads: accounts for the messages in flight.
    """

    def __init__(
        self, inference: Inference, window: int, closing: asyncio.Event, uploads: UploadBudget
    ) -> None:
        self._inference = inference
        self._window = window
        self._closing = closing
        self._uploads = uploads

    async def serve(self, requests: Any, rpc: Rpc) -> None:
        """One stream, from its first message to its end."""
        # Each request is taken from the quota when it comes; opening the stream is none.
        rpc.identify()
        status_errors = rpc.exchange.header(_STATUS_ERRORS).lower() == "true"
        room = asyncio.Semaphore(self._window)
        answers: asyncio.Queue[asyncio.Task[Reply] | None] = asyncio.Queue()
        open_tasks: set[asyncio.Task[Reply]] = set()
        reader = asyncio.create_task(self._read(requests, rpc, room, answers, open_tasks))
        try:
            while (task := await answers.get()) is not None:
                reply, error = await task
                if error is not None and (status_errors or isinstance(error, Unauthenticated)):
                    raise error
                await rpc.context.write(reply.SerializeToString())
                open_tasks.discard(task)
                room.release()
            if await reader:
                raise Unavailable("the server is draining; open the stream elsewhere", code="DRAINING")
        finally:
            # The caller may have left: what was for it is withdrawn.
            for pending in (reader, *open_tasks):
                pending.cancel()
            await asyncio.gather(reader, *open_tasks, return_exceptions=True)

    async def _read(
        self,
        requests: Any,
        rpc: Rpc,
        room: asyncio.Semaphore,
        answers: asyncio.Queue[asyncio.Task[Reply] | None],
        open_tasks: set[asyncio.Task[Reply]],
    ) -> bool:
        """Start a task per request until the client has sent its last. True if the server ends it first."""
        end = asyncio.ensure_future(self._closing.wait())
        iterator = aiter(requests)
        try:
            while True:
                await room.acquire()
                arrival = asyncio.ensure_future(anext(iterator, None))
                try:
                    await asyncio.wait({arrival, end}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not arrival.done():
                        arrival.cancel()
                if not arrival.done() or arrival.cancelled():
                    return True
                raw = arrival.result()
                if raw is None:
                    return False
                task = asyncio.create_task(self._answer(raw, rpc, time.monotonic()))
                open_tasks.add(task)
                answers.put_nowait(task)
        finally:
            end.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await end
            answers.put_nowait(None)

    async def _answer(self, raw: bytes, rpc: Rpc, arrived: float) -> Reply:
        with self._uploads.open() as hold:
            return await self._answer_held(raw, rpc, arrived, hold)

    async def _answer_held(self, raw: bytes, rpc: Rpc, arrived: float, hold: Hold) -> Reply:
        stream_reply = message("inference.ModelStreamInferResponse")
        reply = message("inference.ModelInferResponse")()
        try:
            hold.take(len(raw))
            request = parse(message("inference.ModelInferRequest"), raw)
            reply.id = request.id
            reply.model_name = request.model_name
            decoded, response = await self._inference.infer_one(request, rpc.read(arrived))
        except ServingError as error:
            return stream_reply(error_message=error.message, infer_response=reply), error
        except Exception:
            logger.exception("a request of a stream failed")
            failure = Internal("internal error; the server's log has more")
            return stream_reply(error_message=failure.message, infer_response=reply), failure
        rpc.model = response.model
        reply = proto_codec.encode_response(response, decoded)
        # Nonet's models give one answer per request; clients that wait for a last one are told this is it.
        reply.parameters["triton_final_response"].bool_param = True
        return stream_reply(infer_response=reply), None
