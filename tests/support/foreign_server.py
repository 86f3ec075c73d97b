"""A server of the Open Inference Protocol that is not Nonet: a decoupled model, as Triton serves one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import numpy as np

from nonet.runtime.oip.messages import OPEN_INFERENCE, message, methods

MODEL = "repeater"


class ForeignServer:
    """Model ``repeater``: INT32 ``count`` [1] to as many answers, INT32 ``number`` [1] from 0 on, and then
    an empty one if it was asked for.

    Attributes:
        pause: an event that each answer after the first waits for.
        cancelled: set when a caller of the stream has left.
        dies_after: after so many answers to a request the server aborts its stream; None: never.
    """

    def __init__(self) -> None:
        self.pause = asyncio.Event()
        self.pause.set()
        self.cancelled = asyncio.Event()
        self.dies_after: int | None = None
        self.address = ""

    async def server_ready(self, request: Any, context: Any) -> Any:
        return message("inference.ServerReadyResponse")(ready=True)

    async def repository_index(self, request: Any, context: Any) -> Any:
        entry = {"name": MODEL, "version": "1", "state": "READY"}
        return message("inference.RepositoryIndexResponse")(models=[entry])

    async def model_config(self, request: Any, context: Any) -> Any:
        config = {"name": MODEL, "model_transaction_policy": {"decoupled": True}}
        return message("inference.ModelConfigResponse")(config=config)

    async def model_metadata(self, request: Any, context: Any) -> Any:
        inputs = [{"name": "count", "datatype": "INT32", "shape": [1]}]
        outputs = [{"name": "number", "datatype": "INT32", "shape": [1]}]
        return message("inference.ModelMetadataResponse")(
            name=MODEL, versions=["1"], platform="python", inputs=inputs, outputs=outputs
        )

    async def model_infer(self, request: Any, context: Any) -> Any:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the model has a decoupled transaction policy")

    async def model_stream_infer(self, requests: Any, context: Any) -> None:
        try:
            async for request in requests:
                await self._answer(request, context)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _answer(self, request: Any, context: Any) -> None:
        reply = message("inference.ModelStreamInferResponse")
        count = int(np.frombuffer(request.raw_input_contents[0], np.int32)[0])
        for number in range(count):
            if number:
                await self.pause.wait()
            if number == self.dies_after:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the backend has died")
            answer = message("inference.ModelInferResponse")(
                model_name=MODEL, model_version="1", id=request.id
            )
            answer.outputs.add(name="number", datatype="INT32", shape=[1])
            answer.raw_output_contents.append(np.array([number], np.int32).tobytes())
            answer.parameters["triton_final_response"].bool_param = False
            await context.write(reply(infer_response=answer).SerializeToString())
        if request.parameters["triton_enable_empty_final_response"].bool_param:
            end = message("inference.ModelInferResponse")(model_name=MODEL, model_version="1", id=request.id)
            end.parameters["triton_final_response"].bool_param = True
            await context.write(reply(infer_response=end).SerializeToString())


@asynccontextmanager
async def foreign_server() -> AsyncIterator[ForeignServer]:
    """One that listens on a free port of this machine while the block runs."""
    served = ForeignServer()
    behaviours = {
        "ServerReady": served.server_ready,
        "RepositoryIndex": served.repository_index,
        "ModelConfig": served.model_config,
        "ModelMetadata": served.model_metadata,
        "ModelInfer": served.model_infer,
    }
    handlers = {
        method.name: grpc.unary_unary_rpc_method_handler(
            behaviours[method.name],
            request_deserializer=method.request.FromString,
            response_serializer=lambda sent: sent.SerializeToString(),
        )
        for method in methods(OPEN_INFERENCE)
        if method.name in behaviours
    }
    handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
        served.model_stream_infer, request_deserializer=message("inference.ModelInferRequest").FromString
    )
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(OPEN_INFERENCE, handlers),))
    served.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield served
    finally:
        served.pause.set()
        await server.stop(0.2)
