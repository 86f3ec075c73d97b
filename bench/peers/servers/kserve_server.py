"""KServe's Python server: the Open Inference Protocol over HTTP and gRPC. MODEL PORT GRPC_PORT"""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from session import Model as Network


class Served(Model):
    """One request at a time, in a thread beside the event loop: this server has no batching of its own."""

    def __init__(self, name: str, path: str) -> None:
        super().__init__(name)
        self.network = Network(path)
        self.pool = ThreadPoolExecutor(1)
        self.ready = True

    async def predict(self, payload: InferRequest, *_: Any, **__: Any) -> InferResponse:
        rows = payload.inputs[0].as_numpy()
        loop = asyncio.get_running_loop()
        logits = await loop.run_in_executor(self.pool, self.network.run_array, rows)
        output = InferOutput("logits", list(logits.shape), "FP32")
        output.set_data_from_numpy(logits, binary_data=True)
        return InferResponse(
            payload.id or "",
            self.name,
            [output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


if __name__ == "__main__":
    server = ModelServer(
        http_port=int(sys.argv[2]), grpc_port=int(sys.argv[3]), workers=1, enable_latency_logging=False
    )
    server.start([Served("fasternet_t0", sys.argv[1])])
